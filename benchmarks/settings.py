"""Settings of the benchmarks: the site's, with databases of their own on the same server."""

import os

from config.settings import *
from config.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]
DATABASES["default"]["NAME"] = os.environ.get("BENCH_DATABASE", "messaging_bench")
# The same again, for what is compared with and without a million messages in it.
DATABASES["blocked"] = {
    **DATABASES["default"],
    "NAME": f"{DATABASES['default']['NAME']}_blocked",
}
# Five million messages, to look for some among them.
DATABASES["search"] = {
    **DATABASES["default"],
    "NAME": f"{DATABASES['default']['NAME']}_search",
}
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}
DEBUG = False
