"""Endings: why a stream is over or is not begun, in the codes and words that its client gets."""

from dataclasses import dataclass

from .access import NOT_ALLOWED, NOT_FOUND, SIGNED_OUT

# Codes that a socket is closed with; the last three digits are those of HTTP, where there are any.
TOO_SLOW = 4008
BAD_FRAMES = 4400
SILENT = 4408
TOO_MANY = 4429
UNAVAILABLE = 4503
# Not an error: the client comes back at once with its position.
TAKE_A_BREATH = 4000

STREAMS_A_USER = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What a client is told."""

    name: str
    message: str
    status: int


ENDINGS = {
    SIGNED_OUT: Ending(
        name="signed_out", message="Nobody is logged in with this session. Log in.", status=401
    ),
    NOT_ALLOWED: Ending(
        name="not_allowed",
        message="The permission messaging.view_topic was taken away. Ask for it.",
        status=403,
    ),
    NOT_FOUND: Ending(
        name="not_found",
        message="There is no such topic, or it is not for you. Ask for messaging.view_topic.",
        status=404,
    ),
    TOO_SLOW: Ending(
        name="too_slow",
        message="Too many events waited to be taken. Resume, and take them faster.",
        status=408,
    ),
    SILENT: Ending(
        name="silent", message="Nothing came from you for too long. Answer pings.", status=408
    ),
    TOO_MANY: Ending(
        name="too_many",
        message=f"You have {STREAMS_A_USER} streams open, as many as are allowed. Close one.",
        status=429,
    ),
    BAD_FRAMES: Ending(
        name="bad_frames", message="Too many frames meant nothing. See the protocol.", status=400
    ),
    UNAVAILABLE: Ending(
        name="unavailable", message="The database does not answer. Try again later.", status=503
    ),
    TAKE_A_BREATH: Ending(
        name="resume", message="This stream has carried enough. Resume.", status=200
    ),
}
