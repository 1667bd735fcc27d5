"""Planting: put a bug into a copy of the checkout, and run the checker that should see it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from catalogue import Mutant

CHECKOUT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "dist", "build", "node_modules")
# A story that is stuck, rather than red, is not what a checker should be.
PATIENCE = 300
# A few stories are enough to see a bug, and the first that shows it will do.
SETTINGS = {"MODEL_RUNS": "160", "MODEL_AS_FOUND": "1"}


class Copy:
    """A copy of the checkout in which one mutant at a time is planted."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        # Made anew when the tables may be others than those of the mutant before.
        self.is_stale = True
        shutil.copytree(CHECKOUT, root, ignore=NOT_COPIED)

    def check(self, mutant: Mutant) -> subprocess.CompletedProcess[str]:
        """Plant a mutant, run its checker, and take the mutant out again."""
        path = self.root / "messaging" / mutant.path
        sound = path.read_text()
        changes_tables = mutant.path.startswith("migrations/")
        self.is_stale = self.is_stale or changes_tables
        path.write_text(planted(mutant, sound))
        try:
            return self._run(mutant.checker)
        finally:
            path.write_text(sound)
            self.is_stale = changes_tables

    def _run(self, checker: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return subprocess.run(
            [
                sys.executable, "-m", "pytest", "-x", "-rf", "--tb=short", "-p", "no:cacheprovider",
                "--create-db" if self.is_stale else "--reuse-db", checker,
            ],
            cwd=self.root,
            env={**inherited, **SETTINGS, "DATABASE_URL": self.url, "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )  # fmt: skip


def planted(mutant: Mutant, sound: str) -> str:
    """Return a file with a bug in it; the bug has to fit the file as it is today."""
    for old, new in mutant.edits:
        found = sound.count(old)
        assert found == mutant.times, f"{old!r} stands {found} times in {mutant.path}"
        sound = sound.replace(old, new)
    return sound
