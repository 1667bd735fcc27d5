"""Tables: the effects of the handlers."""

from django.db import models


class Effect(models.Model):
    """Written by a handler in its transaction: one row for each time that it took effect."""

    message_id = models.BigIntegerField()
    queue = models.CharField(max_length=80)
    attempt = models.SmallIntegerField()
    worker = models.IntegerField(help_text="Process id.")

    def __str__(self) -> str:
        return f"effect of message {self.message_id}"
