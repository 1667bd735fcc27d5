"""Patterns: search text for a regular expression, in a time that grows with the text alone.

Python's own engine tries every way to match, which for some patterns and texts takes for ever, and
nothing can interrupt it: a message could stop its publisher. This one follows all ways at once, and
remembers where they lead. Back references and looking around are not regular, and refused.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from re import _constants as codes, _parser as parser  # type: ignore[attr-defined]  # isort: skip

MAX_LENGTH = 1_000
# A count such as {100} takes so many nodes of what it counts.
MAX_NODES = 1_000
# What is remembered of one pattern, before it starts anew.
MAX_STATES = 500
MAX_MOVES = 20_000

Test = Callable[[str], bool]
Spend = Callable[[int], None]
SPACES = frozenset(" \t\n\r\f\v\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | frozenset(
    map(chr, range(0x2000, 0x200B))
)


class Unsupported(ValueError):
    """A pattern that cannot be searched for, and why."""


@lru_cache(maxsize=1_000)
def compiled(pattern: str) -> "Pattern":
    """Return a pattern ready to search with, or raise Unsupported."""
    return Pattern(pattern)


class _State:
    """All places in a pattern where one can be after some text."""

    __slots__ = ("following", "is_match", "nodes")

    def __init__(self, nodes: frozenset[int], is_match: bool) -> None:
        self.nodes = nodes
        self.is_match = is_match
        self.following: dict[str, _State] = {}


class Pattern:
    """A regular expression as JSON Schema means it: ECMA 262, found anywhere in a text."""

    def __init__(self, pattern: str) -> None:
        # By node: the test of a character, or None, and the nodes after it.
        self._tests: list[Test | None] = []
        self._after: list[tuple[int, ...]] = []
        self._match = self._add(None)
        self._begins: set[int] = set()
        self._ends: set[int] = set()
        self._first = self._sequence(_parsed(pattern), self._match)
        self._states: dict[frozenset[int], _State] = {}
        self._moves = 0
        self._again = self._reached([self._first], at_start=False)
        self._start = self._state(self._reached([self._first], at_start=True))

    def is_in(self, text: str, spend: Spend) -> bool:
        """Tell whether the pattern is found in a text; ``spend`` is told of the work it takes."""
        state = self._start
        for character in text:
            if state.is_match:
                return True
            following = state.following.get(character)
            if following is None:
                spend(len(state.nodes))
                following = self._step(state, character)
            state = following
        ended = [node for end in state.nodes & self._ends for node in self._after[end]]
        return state.is_match or self._match in self._reached(ended, at_start=not text, at_end=True)

    def _step(self, state: _State, character: str) -> _State:
        nodes = [
            node
            for place in state.nodes
            if (test := self._tests[place]) is not None and test(character)
            for node in self._after[place]
        ]
        following = self._state(self._reached(nodes, at_start=False) | self._again)
        if self._moves >= MAX_MOVES or len(self._states) > MAX_STATES:
            self._states, self._moves = {}, 0
            self._start.following = {}
        self._moves += 1
        state.following[character] = following
        return following

    def _state(self, nodes: frozenset[int]) -> _State:
        found = self._states.get(nodes)
        if found is None:
            found = self._states[nodes] = _State(nodes, self._match in nodes)
        return found

    def _reached(
        self, nodes: Iterable[int], *, at_start: bool, at_end: bool = False
    ) -> frozenset[int]:
        """Add the nodes that need no further character."""
        reached: set[int] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node in reached or (node in self._begins and not at_start):
                continue
            reached.add(node)
            if self._tests[node] is None and (at_end or node not in self._ends):
                waiting += self._after[node]
        return frozenset(reached)

    # How a pattern becomes nodes: from its end to its beginning.

    def _add(self, test: Test | None, *after: int) -> int:
        if len(self._tests) >= MAX_NODES:
            raise Unsupported("its counts and alternatives are too many")
        self._tests.append(test)
        self._after.append(after)
        return len(self._tests) - 1

    def _sequence(self, items: Iterable[Any], after: int) -> int:
        for code, argument in reversed(list(items)):
            after = self._item(code, argument, after)
        return after

    def _item(self, code: Any, argument: Any, after: int) -> int:
        if code is codes.SUBPATTERN:
            _, added, removed, items = argument
            if added or removed:
                raise Unsupported("flags are not supported")
            return self._sequence(items, after)
        if code is codes.BRANCH:
            return self._add(None, *[self._sequence(items, after) for items in argument[1]])
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            least, most, items = argument
            return self._repeat(least, most, items, after)
        if code is codes.AT:
            return self._boundary(argument, after)
        return self._add(_test(code, argument), after)

    def _repeat(self, least: int, most: Any, items: Any, after: int) -> int:
        if most is codes.MAXREPEAT:
            start = self._add(None)
            self._after[start] = (self._sequence(items, start), after)
        else:
            start = after
            for _ in range(most - least):
                start = self._add(None, self._sequence(items, start), after)
        for _ in range(least):
            start = self._sequence(items, start)
        return start

    def _boundary(self, where: Any, after: int) -> int:
        node = self._add(None, after)
        if where in (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING):
            self._begins.add(node)
        elif where in (codes.AT_END, codes.AT_END_STRING):
            self._ends.add(node)
        else:
            raise Unsupported("of the boundaries, only ^ and $ are supported")
        return node


def _parsed(pattern: str) -> Any:
    if len(pattern) > MAX_LENGTH:
        raise Unsupported(f"it has {len(pattern):,} characters, {MAX_LENGTH:,} are the most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of what may mean something else one day
            found = parser.parse(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise Unsupported(f"it is no regular expression: {error}") from error
    if found.state.flags & ~re.ASCII:
        raise Unsupported("flags are not supported")
    return found


def _test(code: Any, argument: Any) -> Test:
    if code is codes.ANY:
        return lambda character: character not in "\n\r\u2028\u2029"
    if code is codes.LITERAL:
        return chr(argument).__eq__
    if code is codes.NOT_LITERAL:
        return chr(argument).__ne__
    if code is not codes.IN:
        raise Unsupported("looking around and referring back are not supported")
    is_negated = argument[0][0] is codes.NEGATE
    tests = [_one_of(*each) for each in argument[is_negated:]]
    return lambda character: any(test(character) for test in tests) is not is_negated


def _one_of(code: Any, argument: Any) -> Test:
    if code is codes.LITERAL:
        return chr(argument).__eq__
    if code is codes.RANGE:
        first, last = map(chr, argument)
        return lambda character: first <= character <= last
    return _CATEGORIES[argument]


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


_CATEGORIES: dict[Any, Test] = {
    codes.CATEGORY_DIGIT: _is_digit,
    codes.CATEGORY_NOT_DIGIT: lambda character: not _is_digit(character),
    codes.CATEGORY_WORD: _is_word,
    codes.CATEGORY_NOT_WORD: lambda character: not _is_word(character),
    codes.CATEGORY_SPACE: SPACES.__contains__,
    codes.CATEGORY_NOT_SPACE: lambda character: character not in SPACES,
}
