"""Consumers of the benchmarks."""

from messaging import Message, Retry, consumer


@consumer("bench-nothing")
def do_nothing(message: Message) -> None:
    """Do nothing: what is left is the cost of messaging itself."""


@consumer("bench-keys")
def come_back_tomorrow(message: Message) -> None:
    """Block the key of the message for as long as any benchmark takes."""
    raise Retry(after=86_400)
