"""Settings of the benchmarks: the site's, with a database of their own on the same server."""

import os

from config.settings import *
from config.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]
DATABASES["default"]["NAME"] = os.environ.get("BENCH_DATABASE", "messaging_bench")
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}
DEBUG = False
