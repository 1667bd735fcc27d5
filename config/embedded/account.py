"""Run a server under an account without rights, because PostgreSQL refuses to be root."""

import os
import pwd
import struct
import subprocess
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

NAME = "embedded_postgres"

# An access control list as Linux keeps it (acl(5)): a version, then a tag, bits and id an entry.
ACL = "system.posix_acl_access"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
SEARCH = 1

Entry = tuple[int, int, int]


def account() -> pwd.struct_passwd | None:
    """Return whom the servers run as: an account of their own for root, otherwise the caller."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        # Not checked: another checkout may make the account in the same moment.
        subprocess.run(["useradd", "--system", NAME], check=False)  # noqa: S603, S607
        return pwd.getpwnam(NAME)


def as_account() -> dict[str, Any]:
    """Return the options with which `subprocess` starts a program as the account."""
    who = account()
    # A session of its own: Ctrl-C in the terminal must not reach the server.
    options: dict[str, Any] = {"start_new_session": True, "cwd": "/"}
    if who is not None:
        options |= {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    return options


def give(path: Path) -> None:
    """Make the account the owner of a file or folder."""
    if who := account():
        os.chown(path, who.pw_uid, who.pw_gid)


def let_in(*folders: Path) -> None:
    """Let the account, and nobody else, pass through the folders above these."""
    who = account()
    if who is None:
        return
    for folder in {parent for path in folders for parent in path.resolve().parents}:
        if not folder.stat().st_mode & SEARCH:
            _allow_search(folder, who.pw_uid)


def open_up(installation: Path) -> None:
    """Let the account run programs that a strict umask kept for the user who installed them."""
    if account() is None or installation.stat().st_mode & SEARCH:
        return
    for path in (installation, *installation.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 6)


def _allow_search(folder: Path, uid: int) -> None:
    """Do what `setfacl -m u:UID:x` does, which many machines do not have."""
    kept = {(tag, who): bits for tag, bits, who in _entries(folder) if tag != MASK}
    kept[USER, uid] = SEARCH
    # The mask bounds what it covers, so it has to hold each of their bits.
    covered = [bits for (tag, _), bits in kept.items() if tag in (USER, GROUP, NAMED_GROUP)]
    kept[MASK, NOBODY] = reduce(or_, covered)
    packed = b"".join(struct.pack("<HHI", tag, kept[tag, who], who) for tag, who in sorted(kept))
    try:
        os.setxattr(folder, ACL, struct.pack("<I", 2) + packed)
    except OSError as error:
        raise PermissionError(
            f"The account {NAME!r}, which runs PostgreSQL for root, cannot pass through "
            f"{str(folder)!r}. Allow it with `chmod o+x`, check out elsewhere, or set DATABASE_URL."
        ) from error


def _entries(folder: Path) -> list[Entry]:
    """Return the folder's list, or the one that its mode stands for."""
    try:
        return list(struct.iter_unpack("<HHI", os.getxattr(folder, ACL)[4:]))
    except OSError:
        mode = folder.stat().st_mode
        bits = {OWNER: mode >> 6 & 7, GROUP: mode >> 3 & 7, OTHER: mode & 7}
        return [(tag, rights, NOBODY) for tag, rights in bits.items()]
