"""Run worker processes, under a name that no other app has: the same as ``runworker``."""

from .runworker import Command

__all__ = ["Command"]
