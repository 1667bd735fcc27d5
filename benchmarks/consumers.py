"""Consumers of the benchmarks."""

from messaging import Message, consumer


@consumer("bench-nothing")
def do_nothing(message: Message) -> None:
    """Do nothing: what is left is the cost of messaging itself."""
