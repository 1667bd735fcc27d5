"""What a project imports at module level is there before Django is ready."""

import subprocess
import sys

import pytest

PUBLIC = [
    "send",
    "send_many",
    "publish",
    "publish_many",
    "asend",
    "apublish",
    "consumer",
    "once",
    "Retry",
    "Reject",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_imported_before_django_is_set_up(name: str) -> None:
    code = (
        f"import sys; from messaging import {name};"
        "from django.conf import settings;"
        "assert not settings.configured, 'settings were read';"
        "assert 'messaging.models' not in sys.modules, 'models were imported'"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={})
    assert ended.returncode == 0, ended.stderr


def test_the_app_needs_neither_channels_nor_the_shop_to_be_imported() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['channels', 'daphne', 'orders', 'config']));"
        "from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['django.contrib.contenttypes', 'messaging']);"
        "import django; django.setup();"
        "from messaging import send"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={})
    assert ended.returncode == 0, ended.stderr
