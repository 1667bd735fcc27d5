"""Addresses: where webhooks may be sent, so that nobody reaches the inside of a network by one.

A URL is checked when it is saved, and again when it is used: its host's addresses may be others by
then. What `MESSAGING["WEBHOOK_ALLOWED_HOSTS"]` names is let through, over http and on any port too.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from django.utils.http import is_same_domain

from . import conf
from .exceptions import InvalidURL

PORTS = (443, 8443)
MAX_LENGTH = 500
NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# What every reader of URLs takes for an IPv4 address, however it is spelled (WHATWG: URL, 3.5).
ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
PORT = re.compile(r"(?!0)[0-9]{1,5}")

PUBLIC_IPV6 = IPv6Network("2000::/3")
# Of the global addresses those that lead elsewhere: 6to4 and its relays, Teredo and other special
# ones, documentation.
SPECIAL = (
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
)
NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Target(NamedTuple):
    """Where a webhook is sent, taken apart once; ``host`` is a name, or an address as text."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host and the port as the header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"https": 443, "http": 80}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def check_url(url: object) -> Target:
    """Return where a URL leads, or raise InvalidURL with what is wrong."""
    if not isinstance(url, str) or not re.fullmatch(rf"[!-~]{{1,{MAX_LENGTH}}}", url):
        raise InvalidURL(
            url,
            f"use 1 to {MAX_LENGTH} printable ASCII characters without spaces (names of other "
            f"letters as xn--, the rest percent-encoded)",
        )
    if "\\" in url:
        raise InvalidURL(url, "it has a backslash, which readers of URLs disagree about")
    try:
        parts = urlsplit(url)
        host, authority = parts.hostname or "", parts.netloc
    except ValueError as error:
        raise InvalidURL(url, f"it is no URL ({error})") from error
    if parts.scheme not in ("https", "http"):
        raise InvalidURL(url, "use https://")
    if "@" in authority:
        raise InvalidURL(url, "it has a user or a password; requests are signed instead")
    if parts.fragment:
        raise InvalidURL(url, "it has a fragment, which is never sent")
    target = Target(
        scheme=parts.scheme,
        host=_check_host(url, host),
        port=_port(url, parts.scheme, authority),
        path=f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
    )
    if not is_allowed(target.host):
        _check_public(url, target)
    return target


def _check_host(url: str, host: str) -> str:
    """Return a name or an address in the one spelling that means the same to everybody."""
    if address := address_of(host):
        return str(address)
    if ENDS_IN_A_NUMBER.fullmatch(host):
        raise InvalidURL(url, f"{host!r} is an address in an odd spelling; use four numbers")
    if not NAME.fullmatch(host):
        raise InvalidURL(url, "it names no host")
    return host


def _port(url: str, scheme: str, authority: str) -> int:
    """Return the port, which has to follow the host with nothing else around it."""
    _, colon, text = authority.rpartition("]")[2].rpartition(":")
    if not colon:
        return 443 if scheme == "https" else 80
    if not PORT.fullmatch(text) or int(text) > 65_535:
        raise InvalidURL(url, "its port is no number from 1 to 65535")
    return int(text)


def _check_public(url: str, target: Target) -> None:
    remedy = "or add the host to MESSAGING['WEBHOOK_ALLOWED_HOSTS']"
    if target.scheme != "https":
        raise InvalidURL(url, f"use https://, {remedy}")
    if target.port not in PORTS:
        ports = " or ".join(map(str, PORTS))
        raise InvalidURL(url, f"port {target.port} is not open to webhooks; use {ports}, {remedy}")
    address = address_of(target.host)
    inside = address is None and (
        "." not in target.host or is_same_domain(target.host, ".localhost")
    )
    if inside or (address is not None and not is_public(address)):
        raise InvalidURL(url, f"{target.host} is not public; use a public host, {remedy}")


def allow(url: str, target: Target, found: Iterable[str]) -> list[str]:
    """Return the addresses that a host was resolved to, or raise InvalidURL when one is inside.

    All of them have to be public: what comes in any order is no choice of ours.
    """
    addresses = list(dict.fromkeys(found))
    if not _is_allowed_name(target.host):
        for text in addresses:
            address = address_of(text)
            if address is None or not (is_public(address) or _is_in_allowed_network(address)):
                raise InvalidURL(
                    url,
                    f"{target.host} leads to {text}, which is not public; use a public host, or "
                    f"add it to MESSAGING['WEBHOOK_ALLOWED_HOSTS']",
                )
    return addresses


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet's, and leads nowhere else by being unwrapped.

    ``ipaddress`` alone calls multicast global, and the addresses of carriers not private.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in PUBLIC_IPV6 or address.scope_id is not None:
            return False
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(_is_in(address, network) for network in SPECIAL)


def address_of(host: str) -> Address | None:
    """Return the address that a host is when it is none by name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_allowed(host: str) -> bool:
    """Tell whether the settings let a host through that is a name or an address."""
    address = address_of(host)
    return _is_allowed_name(host) if address is None else _is_in_allowed_network(address)


def is_allowance(entry: object) -> bool:
    """Tell whether an entry of the setting is a name, a domain with its dot, or a network."""
    if not isinstance(entry, str):
        return False
    is_name = NAME.fullmatch(entry.removeprefix(".")) and not ENDS_IN_A_NUMBER.fullmatch(entry)
    return bool(is_name) or _network(entry) is not None


def _is_allowed_name(host: str) -> bool:
    return any(is_same_domain(host, entry) for entry in conf.WEBHOOK_ALLOWED_HOSTS)


def _is_in_allowed_network(address: Address) -> bool:
    networks = map(_network, conf.WEBHOOK_ALLOWED_HOSTS)
    return any(network is not None and _is_in(address, network) for network in networks)


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
