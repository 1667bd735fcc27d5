"""Settings of the scenarios' processes: those of the site, and the app that is tried."""

import django

from config.settings import *
from config.settings import INSTALLED_APPS, env

# Hundreds of processes are started here, and none needs these, which take as long to import as all
# the rest.
NOT_NEEDED = {"daphne", "django_rq"}
INSTALLED_APPS = [*(app for app in INSTALLED_APPS if app not in NOT_NEEDED), "trials"]
MESSAGING = env.json("TRIALS_MESSAGING", default={})

MAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": MAIL_BACKEND}}
else:
    EMAIL_BACKEND = MAIL_BACKEND
