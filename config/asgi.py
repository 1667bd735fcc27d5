"""Serve the site: pages over HTTP, the live feed over WebSocket."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# First, because it fills the app registry, which the import below needs.
http_application = get_asgi_application()

from messaging.dashboard.routing import websocket_application  # noqa: E402

application = ProtocolTypeRouter({"http": http_application, "websocket": websocket_application})
