"""Turns: in which order a worker serves its queues, by their weights."""

from collections.abc import Iterator, Sequence


def turns(weights: Sequence[int]) -> Iterator[int]:
    """Yield positions, each as often as it weighs, and spread over the round (nginx: smooth).

    Of the weights 3 and 1 that is 0, 0, 1, 0: nobody waits for all the turns of another.
    """
    if len(set(weights)) == 1:
        yield from range(len(weights))
        return
    total = sum(weights)
    claims = [0] * len(weights)
    for _ in range(total):
        claims = [claim + weight for claim, weight in zip(claims, weights, strict=True)]
        position = max(range(len(claims)), key=claims.__getitem__)
        claims[position] -= total
        yield position
