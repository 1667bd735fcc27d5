"""Webhooks are sent to public hosts only, however an address is spelled or wrapped."""

import socket
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging.addresses import MAX_LENGTH, PORTS, allow, check_url, is_allowance, is_public
from messaging.exceptions import InvalidURL

PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
INSIDE = {
    "loopback": ["127.0.0.1", "127.8.9.10", "::1"],
    "this host": ["0.0.0.0", "::", "0.1.2.3"],  # noqa: S104 - refused
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "site-local": ["fec0::1"],
    "carriers'": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1"],
    "compatible": ["::127.0.0.1", "::1.1.1.1"],
    "translated": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::", "2002:101:101::1", "192.88.99.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "outside of what is given out": ["4000::1", "100::1"],
}

# Anything, and what looks like an address in some spelling.
URLS = st.text() | st.from_regex(r"https?://[0-9a-fx.:%@\[\]]{1,30}(/[!-~]{0,5})?", fullmatch=True)


@pytest.fixture(autouse=True)
def allowed(settings):
    """Return a function that says which hosts are let through; none at first."""

    def use(*hosts):
        settings.MESSAGING = {"WEBHOOK_ALLOWED_HOSTS": list(hosts)}

    use()
    return use


class TestAddresses:
    @pytest.mark.parametrize("text", PUBLIC)
    def test_a_public_one_is_let_through(self, text):
        assert is_public(ip_address(text))

    @pytest.mark.parametrize("text", [each for some in INSIDE.values() for each in some])
    def test_what_leads_inside_is_not(self, text):
        assert not is_public(ip_address(text))
        host = f"[{text}]" if ":" in text else text
        with pytest.raises(InvalidURL):
            check_url(f"https://{host}/hook")
        with pytest.raises(InvalidURL, match=r"which is not public; use a public host"):
            allow("https://a.example/", check_url("https://a.example/"), ["1.1.1.1", text])


class TestURLs:
    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("https://a.example", ("https", "a.example", 443, "/")),
            ("https://a.example/in?a=1&b=%20", ("https", "a.example", 443, "/in?a=1&b=%20")),
            ("HTTPS://A.Example:8443/", ("https", "a.example", 8443, "/")),
            ("https://1.1.1.1/", ("https", "1.1.1.1", 443, "/")),
            ("https://[2606:4700:0:0::1111]/", ("https", "2606:4700::1111", 443, "/")),
            ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/")),
        ],
    )
    def test_a_public_one_is_taken_apart(self, url, target):
        assert check_url(url) == target

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://127.0.0.1", "use https://"),
            ("http://localhost/", "use https://"),
            ("http://a.example/", "use https://"),
            ("https://localhost/", "localhost is not public"),
            ("https://LOCALHOST/", "localhost is not public"),
            ("https://a.localhost/", "a.localhost is not public"),
            ("https://database/", "database is not public"),
            ("https://[::1]/", "::1 is not public"),
            ("https://user:pw@a.example/", "a user or a password"),
            ("https://a.example@10.0.0.1/", "a user or a password"),
            ("https://@a.example/", "a user or a password"),
            ("https://a.example:22/", "port 22 is not open"),
            ("https://a.example:80/", "port 80 is not open"),
            ("https://a.example:0/", "no number from 1 to 65535"),
            ("https://a.example:65536/", "no number from 1 to 65535"),
            ("https://a.example:/", "no number from 1 to 65535"),
            ("https://a.example:0443/", "no number from 1 to 65535"),
            ("https://a.example:+443/", "no number from 1 to 65535"),
            ("file:///etc/passwd", "use https://"),
            ("gopher://a.example/", "use https://"),
            ("javascript:alert(1)", "use https://"),
            ("//a.example/", "use https://"),
            ("a.example", "use https://"),
            ("https:///hook", "it names no host"),
            ("https://a..example/", "it names no host"),
            ("https://a.example./", "it names no host"),
            ("https://a%2eexample/", "it names no host"),
            ("https://a.example\\@10.0.0.1/", "backslash"),
            ("https://a.example/#part", "fragment"),
            ("https://[::1", "it is no URL"),
            ("https://a.example/ x", "printable ASCII"),
            ("https://a.exam\nple/", "printable ASCII"),
            ("https://①②⑦.0.0.1/", "printable ASCII"),
            ("https://bücher.example/", "printable ASCII"),
            ("https://a.example/" + "x" * MAX_LENGTH, "printable ASCII"),
            ("", "printable ASCII"),
            (None, "printable ASCII"),
            (7, "printable ASCII"),
        ],
    )
    def test_what_may_lead_elsewhere_is_refused_with_the_reason(self, url, reason):
        with pytest.raises(InvalidURL, match=reason):
            check_url(url)

    @pytest.mark.parametrize(
        "host",
        ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.1", "1.1.1.0x1", "1."],
    )
    def test_an_address_in_an_odd_spelling_is_refused_even_where_it_is_public(self, host):
        with pytest.raises(InvalidURL, match=r"odd spelling|no host"):
            check_url(f"https://{host}/")

    @settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(URLS)
    def test_whatever_is_written_leads_to_a_public_host_or_is_refused(self, url):
        try:
            target = check_url(url)
        except InvalidURL as refusal:
            assert str(refusal).startswith("url=")
            return
        assert (target.scheme, target.port in PORTS) == ("https", True)
        with suppress(OSError):
            # What the C library takes for an address was recognised as one.
            packed = socket.inet_aton(target.host)
            assert is_public(ip_address(packed))


class TestAllowedHosts:
    def test_a_name_is_let_through_on_any_port_also_over_http(self, allowed):
        allowed("hooks.internal")
        target = check_url("http://hooks.internal:9000/x")
        assert target == ("http", "hooks.internal", 9000, "/x")
        assert allow("", target, ["10.0.0.1"]) == ["10.0.0.1"]
        with pytest.raises(InvalidURL):
            check_url("http://more.hooks.internal/")

    def test_a_domain_lets_its_hosts_through(self, allowed):
        allowed(".internal")
        assert check_url("http://hooks.internal/").host == "hooks.internal"
        with pytest.raises(InvalidURL):
            check_url("http://hooks.internal.example/")

    def test_a_network_lets_its_addresses_through_and_names_that_lead_there(self, allowed):
        allowed("10.1.0.0/16")
        assert check_url("http://10.1.2.3:8000/").port == 8000
        target = check_url("https://a.example/")
        assert allow("", target, ["10.1.2.3", "10.1.2.3"]) == ["10.1.2.3"]
        with pytest.raises(InvalidURL, match=r"a.example leads to 10.2.0.1"):
            allow("", target, ["10.1.2.3", "10.2.0.1"])
        with pytest.raises(InvalidURL):
            check_url("http://a.example/")

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///x", "https://u@127.0.0.1/"])
    def test_they_allow_neither_other_schemes_nor_passwords(self, allowed, url):
        allowed("127.0.0.0/8", "a.example")
        with pytest.raises(InvalidURL):
            check_url(url)

    @pytest.mark.parametrize("entry", ["a.internal", ".internal", "localhost", "10.0.0.0/8", "::1"])
    def test_an_entry_is_a_name_a_domain_or_a_network(self, entry):
        assert is_allowance(entry)

    @pytest.mark.parametrize(
        "entry", ["*", "", ".", "http://a.internal", "10.0.0.1/8", "127.1", "A.b", None, 7]
    )
    def test_anything_else_is_no_entry(self, entry):
        assert not is_allowance(entry)
