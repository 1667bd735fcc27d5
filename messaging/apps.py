"""App configuration: registers checks and autodiscovers consumers."""

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class MessagingConfig(AppConfig):
    name = "messaging"
    label = "messaging"
    verbose_name = _("Messaging")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .checks import OF_DATABASE, OF_SETTINGS
        from .sync import sync_after_migrate

        for check in OF_SETTINGS:
            checks.register(check)
        for check in OF_DATABASE:
            checks.register(check, checks.Tags.database)
        post_migrate.connect(sync_after_migrate, sender=self)
        autodiscover_modules("consumers")
