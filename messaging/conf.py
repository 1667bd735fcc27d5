"""Settings: one optional ``MESSAGING`` dict, read when used.

``conf.MAX_BODY_BYTES`` reads ``settings.MESSAGING["MAX_BODY_BYTES"]`` or the default below. What
was read is kept until the setting changes: a message would look settings up half a dozen times.
"""

from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

DEFAULTS: dict[str, Any] = {
    # The alias in DATABASES whose transactions messages share.
    "DATABASE": "default",
    # Largest body of a message, bytes of JSON.
    "MAX_BODY_BYTES": 1024 * 1024,
    # Largest headers of a message, bytes of JSON.
    "MAX_HEADERS_BYTES": 64 * 1024,
    # Longest time without looking for messages when no wake-up arrives, seconds.
    "POLL_INTERVAL": 1.0,
    # URL of a direct PostgreSQL connection for LISTEN and NOTIFY, when DATABASES goes through a
    # pooler in transaction mode; None uses the parameters of DATABASES.
    "LISTEN_URL": None,
    # Prepare the hot statements on the server. None does wherever no pooler stands between; True
    # also behind one that keeps prepared statements (PgBouncer since 1.21, when it is set to).
    "PREPARE_STATEMENTS": None,
    # Who may see the live page: a permission of the logged-in staff user.
    "DASHBOARD_PERMISSION": "messaging.view_queue",
    # Names to the secrets that sign webhooks: "whsec_" and 24 to 64 bytes in base64, or a list of
    # them while one takes the place of another. Read them from the environment.
    "WEBHOOK_SECRETS": {},
    # Which hosts webhooks may be sent to though they are not public: names, ".domains", networks.
    "WEBHOOK_ALLOWED_HOSTS": [],
}


def unknown_settings() -> dict[str, str | None]:
    """Return each key of ``MESSAGING`` that means nothing, with the likely intended one."""
    return {
        key: next(iter(get_close_matches(str(key).upper(), DEFAULTS, n=1)), None)
        for key in given()
        if key not in DEFAULTS
    }


def given() -> dict[str, Any]:
    """Return what the project has set; nothing, as long as it is no dict."""
    messaging = getattr(settings, "MESSAGING", None)
    return messaging if isinstance(messaging, dict) else {}


def __getattr__(name: str) -> Any:
    if name not in DEFAULTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = given().get(name, DEFAULTS[name])
    globals()[name] = value
    return value


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "MESSAGING":
        for name in DEFAULTS:
            globals().pop(name, None)


setting_changed.connect(_forget, dispatch_uid="messaging.conf")
