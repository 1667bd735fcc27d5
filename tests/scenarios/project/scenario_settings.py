"""Settings of the scenarios' processes: those of the site, and the app that is tried."""

import django

from config.settings import *
from config.settings import INSTALLED_APPS, env

INSTALLED_APPS = [*INSTALLED_APPS, "trials"]
MESSAGING = env.json("TRIALS_MESSAGING", default={})

MAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": MAIL_BACKEND}}
else:
    EMAIL_BACKEND = MAIL_BACKEND
