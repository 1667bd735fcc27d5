"""Send: one request to an address that was looked up once, checked, and is connected to.

The name stays what the certificate is held against; an answer to a second look-up could be another
address. Nothing of the environment counts: no proxy, no `.netrc`.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import NamedTuple

from .. import addresses
from ..addresses import Target
from ..exceptions import WebhookFailed

# Of what a receiver says of a failure so much is read, bytes, and shown, characters.
MOST_READ = 65_536
MOST_SHOWN = 200
UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


class Answer(NamedTuple):
    """What a receiver has answered; ``text`` is the beginning of it where that is no success."""

    status: int
    retry_after: str | None
    text: str

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


async def post(url: str, body: str, headers: dict[str, str], timeout: float) -> Answer:
    """Send a request; raise WebhookFailed when there is no answer within ``timeout`` seconds.

    Redirections are answers like others. Raises InvalidURL when the URL leads inside.
    """
    import httpx2

    target = addresses.check_url(url)
    try:
        async with asyncio.timeout(timeout):
            host = (await _resolve(url, target))[0]
            return await _exchange(target, host, body, headers)
    except TimeoutError as error:
        raise WebhookFailed(f"No answer from {target.host} within {timeout:g} seconds.") from error
    except (httpx2.HTTPError, OSError) as error:
        reason = shown(str(error)) or type(error).__name__
        raise WebhookFailed(f"No answer from {target.host}: {reason}") from error


async def _resolve(url: str, target: Target) -> list[str]:
    """Return the addresses of a host, all of them checked."""
    if addresses.address_of(target.host):
        return [target.host]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebhookFailed(f"{target.host} cannot be looked up: {error}") from error
    return addresses.allow(url, target, [str(each[4][0]) for each in found])


async def _exchange(target: Target, host: str, body: str, headers: dict[str, str]) -> Answer:
    import httpx2

    place = f"[{host}]" if ":" in host else host
    # A connection for each request: none is shared by two names of one address.
    async with httpx2.AsyncClient(
        verify=_certificates(), trust_env=False, follow_redirects=False, timeout=None
    ) as client:
        request = client.build_request(
            "POST",
            f"{target.scheme}://{place}:{target.port}{target.path}",
            content=body.encode(),
            headers={
                **headers,
                "host": target.authority,
                "user-agent": "messaging-webhooks",
                "accept-encoding": "identity",
                "connection": "close",
            },
            extensions={"sni_hostname": target.host},
        )
        response = await client.send(request, stream=True)
        try:
            success = response.is_success
            text = "" if success else await _beginning(response.aiter_raw())
            return Answer(response.status_code, response.headers.get("retry-after"), text)
        finally:
            await response.aclose()


async def _beginning(chunks: AsyncIterator[bytes]) -> str:
    read = b""
    async for chunk in chunks:
        read += chunk[: MOST_READ - len(read)]
        if len(read) >= MOST_READ:
            break
    return shown(read.decode(errors="replace"))


def shown(text: str) -> str:
    """Return the first printable characters of what somebody else has said."""
    return UNPRINTABLE.sub(" ", text).strip()[:MOST_SHOWN]


@cache
def _certificates() -> ssl.SSLContext:
    """Return what the certificates of receivers are held against: those that the system trusts."""
    return ssl.create_default_context()
