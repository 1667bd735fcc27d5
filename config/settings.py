"""Settings of the site; each of them that a server needs otherwise comes from the environment."""

from pathlib import Path
from typing import Any

import django
import environ

from .embedded.place import data_folder, kept_secret
from .embedded.valkey import OnDemandQueue

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = data_folder()
env = environ.Env()

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env.str("SECRET_KEY", default="") or kept_secret("secret_key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])

INSTALLED_APPS = [
    # Before staticfiles, for its runserver.
    "daphne",
    # Before channels, which has a runworker command too.
    "messaging",
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_rq",
    "orders",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6, 0)
    else "config.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "messaging.middleware.publisher",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
LOGIN_URL = "admin:login"
SECURE_CSP = {"default-src": ["'self'"]}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# The checkout's own PostgreSQL, started when a process first connects, unless there is another.
DATABASES = {
    "default": env.db("DATABASE_URL")
    if env.str("DATABASE_URL", default="")
    else {"ENGINE": "config.embedded", "NAME": "messaging"}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Each ASGI process reads the log for its own browsers, so nothing has to travel between them.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}
if CHANNEL_REDIS_URL := env.str("CHANNEL_REDIS_URL", default=""):
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [CHANNEL_REDIS_URL]},
    }

REDIS_URL = env.str("REDIS_URL", default="")
# Jobs are JSON: pickles would run code as they are read.
RQ_JOBS = {"SERIALIZER": "rq.serializers.JSONSerializer"}
RQ_QUEUES = {
    "default": {"URL": REDIS_URL, **RQ_JOBS} if REDIS_URL else OnDemandQueue(**RQ_JOBS),
}

SILENCED_SYSTEM_CHECKS = [
    # The layer is this process's alone, which is all that the live page needs.
    "messaging.W005",
]

# The shop's mail goes to a folder. Django 6.1 says it in a setting of another name.
MAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": MAIL_BACKEND, "OPTIONS": {"file_path": DATA_DIR / "mail"}}}
else:
    EMAIL_BACKEND = MAIL_BACKEND
    EMAIL_FILE_PATH = DATA_DIR / "mail"
DEFAULT_FROM_EMAIL = "shop@example.com"

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
# Empty until `collectstatic`; WhiteNoise warns in every process when it is missing.
STATIC_ROOT.mkdir(exist_ok=True)
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        name: {"level": env.str("LOG_LEVEL", default="INFO")} for name in ("messaging", "orders")
    },
}
