"""The wheel in an empty Django project, by the steps of the documentation and nothing else."""

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
STEPS = re.search(
    r"## Five steps\n(.*?)\n## ", (CHECKOUT / "docs" / "installation.md").read_text(), re.DOTALL
)

HOST_SETTINGS = """
INSTALLED_APPS += ["people"]
DATABASES = {{"default": {database!r}}}
BACKEND = "django.core.mail.backends.filebased.EmailBackend"
if "MAILERS" in globals():
    MAILERS = {{"default": {{"BACKEND": BACKEND, "OPTIONS": {{"file_path": BASE_DIR / "mail"}}}}}}
else:
    EMAIL_BACKEND = BACKEND
    EMAIL_FILE_PATH = BASE_DIR / "mail"
"""


def documented_blocks() -> list[str]:
    """Return the code of the five steps, in order."""
    assert STEPS
    blocks = re.findall(r"```\w+\n(.*?)```", STEPS.group(1), re.DOTALL)
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in blocks]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(CHECKOUT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_app_alone_with_all_that_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA")))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"messaging"}
    ours = [
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "messaging").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert "messaging/py.typed" in ours
    assert sorted(ours) == sorted(name for name in names if ".dist-info/" not in name)
    assert b"License-Expression: MIT" in metadata


def test_the_five_steps_have_at_most_twelve_lines() -> None:
    lines = [line for block in documented_blocks() for line in block.splitlines() if line.strip()]
    assert len(lines) <= 12


def test_a_consumer_works_after_the_five_steps_in_an_empty_project(
    wheel: Path, tmp_path: Path, empty_database: dict[str, object]
) -> None:
    install, settings, consumers, migrate, send, work = documented_blocks()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    python = tmp_path / "venv" / "bin" / "python"

    def run(command: str) -> str:
        words = shlex.split(command)
        words[:1] = {"pip": [str(python), "-m", "pip"], "python": [str(python)]}[words[0]]
        ended = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    run(install.replace("messaging-postgres", str(wheel)))
    run("python -m django startproject mysite .")
    run("python manage.py startapp people")
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(HOST_SETTINGS.format(database=empty_database) + settings)
    (tmp_path / "people" / "consumers.py").write_text(consumers)
    run(migrate)
    run(f"python manage.py shell -c {shlex.quote(send)}")
    run(f"{work.strip()} --drain")

    mails = [path.read_text() for path in (tmp_path / "mail").iterdir()]
    assert len(mails) == 1
    assert "To: ada@example.com" in mails[0]
    installed = run("pip list --format=freeze").lower()
    assert "channels" not in installed and "daphne" not in installed
    run("python manage.py check --fail-level WARNING")
