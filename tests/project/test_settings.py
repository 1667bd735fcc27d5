"""The site's settings: what every page is served with."""

from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

MANIFEST = "whitenoise.storage.CompressedManifestStaticFilesStorage"


@pytest.mark.parametrize("address", ["/", "/messaging/", "/admin/", "/admin/login/"])
def test_every_page_forbids_what_is_not_its_own(address: str, admin_client: Client) -> None:
    response = admin_client.get(address)
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"


def test_an_error_page_forbids_it_too(client: Client, db: None) -> None:
    response = client.get("/no-such-page/")
    assert response.status_code == 404
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"


def test_messaging_wins_over_the_channels_command_of_the_same_name() -> None:
    from django.core.management import get_commands

    assert get_commands()["runworker"] == "messaging"


def test_static_files_are_complete_when_their_names_carry_a_hash(
    tmp_path: Path, settings: Settings
) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": MANIFEST}}
    # Raises for a file that a style sheet names and nobody has.
    call_command("collectstatic", interactive=False, verbosity=0)
    assert (tmp_path / "staticfiles.json").exists()
