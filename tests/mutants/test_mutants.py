"""Bugs are planted in a copy of the app, and the checker named for each has to turn red."""

import pytest
from catalogue import MUTANTS, Mutant
from planting import Copy


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(each, id=each.name, marks=[] if each.quick else pytest.mark.soak)
        for each in MUTANTS
    ],
)
def test_a_planted_bug_is_seen(copy: Copy, mutant: Mutant) -> None:
    done = copy.check(mutant)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-3000:] + done.stderr
    assert f"FAILED {mutant.checker}" in done.stdout, done.stdout[-3000:]
    assert mutant.sign in done.stdout, done.stdout[-6000:]
