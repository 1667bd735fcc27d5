"""Connect Django to the checkout's PostgreSQL, which starts when a process first connects."""

from typing import Any

from django.db.backends.postgresql import base

from . import postgres


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's PostgreSQL backend that finds its server, and starts it when it does not run."""

    def get_connection_params(self) -> dict[str, Any]:
        """Fill in the address at each connection: the server may have been restarted since."""
        self.settings_dict.update(postgres.connection_settings())
        return super().get_connection_params()
