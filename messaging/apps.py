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
        from .checks import (
            check_channel_layer,
            check_database,
            check_declarations,
            check_rq_serializers,
            check_settings,
            check_worker_command,
        )
        from .sync import sync_after_migrate

        checks.register(check_settings)
        checks.register(check_declarations)
        checks.register(check_worker_command)
        checks.register(check_channel_layer)
        checks.register(check_rq_serializers)
        checks.register(check_database, checks.Tags.database)
        post_migrate.connect(sync_after_migrate, sender=self)
        autodiscover_modules("consumers")
