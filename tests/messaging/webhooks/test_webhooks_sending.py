"""A request goes to the address that was checked, over TLS that is verified, and nowhere else."""

import asyncio
import json
import socket

import pytest
from django.test import override_settings
from receiver import Receiver, write_certificate

from messaging.exceptions import InvalidURL, WebhookFailed
from messaging.webhooks import sending
from messaging.webhooks.sending import post

NAME = "hooks.partner.example"


@pytest.fixture
def resolve(monkeypatch):
    """Return a function that says where names lead, look-up by look-up; they are noted."""
    answers, asked = [], []

    def look_up(host, port, *args, **kwargs):
        if isinstance(host, str) and host == "127.0.0.1":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (each, port),
            )
            for each in answers.pop(0)
        ]

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    def use(*found):
        answers.extend(found)
        return asked

    return use


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """Return a certificate for the name, which this process trusts."""
    path = write_certificate(tmp_path / "receiver.pem", NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    sending._certificates.cache_clear()
    yield path
    sending._certificates.cache_clear()


@pytest.fixture
def secure(certificate):
    receiver = Receiver(certificate)
    yield receiver
    receiver.close()


def send(url, timeout=10.0):
    return asyncio.run(post(url, json.dumps({"a": "Zoë"}), {"webhook-id": "msg_1"}, timeout))


def allow(*hosts):
    return override_settings(MESSAGING={"WEBHOOK_ALLOWED_HOSTS": list(hosts)})


class TestAddresses:
    @pytest.mark.parametrize(
        "found", [["127.0.0.1"], ["1.1.1.1", "169.254.169.254"], ["::ffff:10.0.0.1"], ["fe80::1%1"]]
    )
    def test_a_public_name_that_leads_inside_is_refused_before_anything_is_sent(
        self, resolve, found
    ):
        resolve(found)
        with pytest.raises(InvalidURL, match=f"{NAME} leads to "):
            send(f"https://{NAME}/")

    def test_a_name_is_looked_up_once_and_the_address_found_is_connected_to(self, resolve, secure):
        asked = resolve(["127.0.0.1"], ["10.0.0.1"])
        with allow(NAME):
            assert send(secure.url(NAME)).status == 200
        assert asked == [NAME]
        assert secure.requests[0].headers["host"] == f"{NAME}:{secure.port}"

    def test_a_name_that_leads_nowhere_is_a_failure(self, resolve):
        resolve()
        with pytest.raises(WebhookFailed, match=f"{NAME} cannot be looked up"):
            send(f"https://{NAME}/")

    def test_what_nobody_may_be_sent_is_refused_here_too(self):
        for url in ("http://127.0.0.1/", "https://[::1]/", "gopher://a.example", "javascript:1"):
            with pytest.raises(InvalidURL):
                send(url)


class TestTransport:
    def test_the_certificate_has_to_be_that_of_the_name(self, resolve, secure):
        resolve(["127.0.0.1"])
        with (
            allow("other.example"),
            pytest.raises(WebhookFailed, match="certificate verify failed"),
        ):
            send(secure.url("other.example"))
        assert secure.requests == []

    def test_the_certificate_has_to_be_one_that_the_system_trusts(
        self, resolve, secure, monkeypatch, tmp_path
    ):
        other = write_certificate(tmp_path / "other.pem", NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(other))
        sending._certificates.cache_clear()
        resolve(["127.0.0.1"])
        with allow(NAME), pytest.raises(WebhookFailed, match="certificate verify failed"):
            send(secure.url(NAME))
        assert secure.requests == []

    def test_neither_a_proxy_nor_a_netrc_of_the_environment_counts(
        self, receiver, monkeypatch, tmp_path
    ):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for each in (name, name.lower()):
                monkeypatch.setenv(each, "http://127.0.0.1:1/")
        with allow("127.0.0.1"):
            assert send(receiver.url()).status == 200
        (request,) = receiver.requests
        assert "authorization" not in request.headers
        assert request.path == "/hook?a=1"

    def test_the_body_is_sent_as_it_was_signed(self, receiver):
        with allow("127.0.0.1"):
            send(receiver.url())
        assert receiver.requests[0].body == json.dumps({"a": "Zoë"})

    def test_one_that_answers_drop_by_drop_has_no_more_time_than_others(self, receiver):
        receiver.answer(500, "x", content_length="1000")
        receiver.closed.clear()
        with allow("127.0.0.1"), pytest.raises(WebhookFailed, match=r"within 0.3 seconds"):
            send(receiver.url(), timeout=0.3)

    def test_what_is_no_http_is_a_failure(self):
        with socket.create_server(("127.0.0.1", 0)) as server, allow("127.0.0.1"):
            port = server.getsockname()[1]

            async def both():
                async def talk(reader, writer):
                    writer.write(b"SSH-2.0-nonsense\r\n\r\n")
                    writer.close()

                async with await asyncio.start_server(talk, sock=server):
                    return await post(f"http://127.0.0.1:{port}/", "{}", {}, 10)

            with pytest.raises(WebhookFailed, match=r"No answer from 127.0.0.1: "):
                asyncio.run(both())
