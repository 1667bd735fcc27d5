"""App configuration: an empty shop is stocked after `migrate`."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .catalogue import stock_after_migrate

        post_migrate.connect(stock_after_migrate, sender=self)
