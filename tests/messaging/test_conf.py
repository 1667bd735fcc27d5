"""Settings are read when used, and the app works without any."""

import pytest

from messaging import conf


def test_without_a_setting_the_defaults_hold(settings):
    del settings.MESSAGING
    assert conf.DATABASE == "default"
    assert conf.MAX_BODY_BYTES == 1024 * 1024
    assert conf.unknown_settings() == {}


@pytest.mark.parametrize("messaging", [None, {}, [], "default"], ids=repr)
def test_what_sets_nothing_leaves_the_defaults(settings, messaging):
    settings.MESSAGING = messaging
    assert {key: getattr(conf, key) for key in conf.DEFAULTS} == conf.DEFAULTS
    assert conf.unknown_settings() == {}


def test_a_setting_counts_from_the_moment_it_changes(settings):
    settings.MESSAGING = {"MAX_BODY_BYTES": 5}
    assert conf.MAX_BODY_BYTES == 5
    assert conf.MAX_HEADERS_BYTES == 64 * 1024
    settings.MESSAGING = {}
    assert conf.MAX_BODY_BYTES == 1024 * 1024


def test_an_unknown_setting_is_told_with_the_likely_one(settings):
    settings.MESSAGING = {"MAX_BODY_BYTE": 5, "poll_interval": 1, 7: 8, "COLOUR": "red"}
    assert conf.unknown_settings() == {
        "MAX_BODY_BYTE": "MAX_BODY_BYTES",
        "poll_interval": "POLL_INTERVAL",
        7: None,
        "COLOUR": None,
    }


def test_what_is_no_setting_is_no_attribute():
    with pytest.raises(AttributeError, match="COLOUR"):
        _ = conf.COLOUR
