"""Secrets of webhooks are long enough, the webhooks' own, and never shown."""

import base64

import pytest
from django.conf import settings as project
from django.core.checks import run_checks

from messaging.exceptions import InvalidSecret
from messaging.signing_keys import keys_of


def secret(key):
    return f"whsec_{base64.b64encode(key).decode()}"


@pytest.fixture
def use(settings):
    """Return a function that sets the secret of the partner."""

    def set_secret(value):
        settings.MESSAGING = {"WEBHOOK_SECRETS": {"partner": value}}

    return set_secret


def found(name):
    return [str(each.msg) for each in run_checks() if each.id == name]


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_key_of_24_to_64_bytes_signs(use, length):
    use(secret(b"k" * length))
    assert keys_of("partner") == [b"k" * length]
    assert found("messaging.E010") == []


def test_of_several_all_sign_in_their_order(use):
    use([secret(b"n" * 24), secret(b"o" * 24)])
    assert keys_of("partner") == [b"n" * 24, b"o" * 24]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (secret(b"k" * 23), "the key has 23 bytes; use 'whsec_' and 24 to 64"),
        (secret(b"k" * 65), "the key has 65 bytes"),
        ("whsec_", "the key has 0 bytes"),
        ("whsec_not-base64-but-quite-long-enough!", "it is not base64"),
        ("whsec_é", "it is not base64"),
        (base64.b64encode(b"k" * 32).decode(), "it does not start with 'whsec_'"),
        (None, "it does not start with 'whsec_'"),
        ({}, "it does not start with 'whsec_'"),
        ([], "the list is empty"),
        ([secret(b"k" * 24), secret(b"k" * 8)], "the key has 8 bytes"),
    ],
)
def test_what_cannot_sign_is_an_error_that_names_the_entry_and_never_shows_it(use, value, reason):
    use(value)
    with pytest.raises(InvalidSecret) as refusal:
        keys_of("partner")
    (told,) = found("messaging.E010")
    assert told == str(refusal.value)
    assert told.startswith("MESSAGING['WEBHOOK_SECRETS']['partner']: ")
    assert reason in told
    for each in value if isinstance(value, list) else [value]:
        assert not isinstance(each, str) or each == "whsec_" or each not in told
    assert refusal.value.__cause__ is None


def test_the_secret_key_of_the_project_is_refused_as_a_key_and_as_its_base64(use, settings):
    settings.SECRET_KEY = "k" * 32
    use(secret(b"k" * 32))
    assert "it is the project's SECRET_KEY" in found("messaging.E010")[0]
    use("whsec_" + "k" * 32)
    assert "it is the project's SECRET_KEY" in found("messaging.E010")[0]
    assert project.SECRET_KEY not in found("messaging.E010")[0]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("WEBHOOK_SECRETS", ["a"], "list"),
        ("WEBHOOK_SECRETS", None, "NoneType"),
        ("WEBHOOK_ALLOWED_HOSTS", "a.internal", "str"),
    ],
)
def test_settings_of_another_type_are_errors(settings, key, value, told):
    settings.MESSAGING = {key: value}
    assert f"MESSAGING[{key!r}] is {told}." in found("messaging.E002")


def test_a_host_that_names_nothing_is_an_error(settings):
    settings.MESSAGING = {"WEBHOOK_ALLOWED_HOSTS": ["a.internal", "*"]}
    assert found("messaging.E011") == ["MESSAGING['WEBHOOK_ALLOWED_HOSTS'] has '*'."]
