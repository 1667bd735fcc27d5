"""Proofs: count what they tried, over all processes, and fail when it was too little."""

import os
from collections import Counter
from pathlib import Path

import pytest

# Another seed tries other stories and other orders; the same one the same again.
SEED = int(os.environ.get("PROOF_SEED", "20261124"))
LEAST = {"schedules": 2_000, "runs": 300, "steps": 300 * 50, "operations": 14}
# An operation counts that was done so often.
SEVERAL = 3
# What happens to messages, in the words of the semantics; each by itself, not as part of another.
OPERATIONS = (
    "send", "publish", "delay", "claim", "acknowledge", "fail", "kill", "lease expiry", "extend",
    "release", "reject", "redrive", "purge", "cancel", "pause", "time passing",
)  # fmt: skip


class Tried:
    """Adds up what the proofs of this run say that they tried; a plugin of pytest."""

    def __init__(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self.totals: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take up what one test tried, in whichever process."""
        if report.when != "call":
            return
        for kind, what in report.user_properties:
            if kind == "tried":
                self.totals.update(what)
            elif kind == "operations":
                self.operations.update(what)

    def missing(self) -> list[str]:
        """Return what a whole run has tried too little of."""
        done = [what for what in OPERATIONS if self.operations[what] >= SEVERAL]
        found = {**self.totals, "operations": len(done)}
        return [
            f"{found.get(kind, 0):,} {kind}, at least {least:,} were wanted"
            for kind, least in LEAST.items()
            if found.get(kind, 0) < least
        ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a whole run that tried too little."""
        if self.is_whole and self.missing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was tried, and by which seed it is tried again."""
        if not self.totals:
            return
        said = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.totals.items()))
        terminalreporter.section(f"proofs, PROOF_SEED={SEED}")
        terminalreporter.write_line(said)
        if self.operations:
            done = ", ".join(f"{what} {n:,}" for what, n in self.operations.most_common())
            terminalreporter.write_line(f"of these steps: {done}")
        for line in self.missing() if self.is_whole else ():
            terminalreporter.write_line(f"TOO LITTLE: {line}", red=True)


def watch(config: pytest.Config) -> None:
    """Add up in the process that reports; ``-m proof`` with nothing narrower is the whole run."""
    if hasattr(config, "workerinput"):
        return
    is_whole = config.option.markexpr == "proof" and not config.option.keyword
    is_whole = is_whole and [Path(each) for each in config.args] == [Path("tests/messaging")]
    config.pluginmanager.register(Tried(is_whole=is_whole), "proofs")
