"""Which addresses may be called: notations, tunnels, and whatever else a stranger may think of."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.media.targets import check_address, check_target, readable_host

LOOPBACK_NOTATIONS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "１２７.0.0.1",  # noqa: RUF001 - full-width digits, which browsers read as digits
    "127。0。0。1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "localhost",
    "LOCALHOST.",
    "a.localhost",
]
OTHER_REFUSED = [
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "0",
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[2002:7f00:1::]",
    "[2002:808:808::]",
    "[64:ff9b:1::808:808]",
    "[64:ff9b::a00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "256.1.1.1",
    "1.2.3.4.5",
    "0x100000000",
    "09.1.1.1",
    "%31%32%37.0.0.1",
    "exa mple.com",
    "-bad-.com",
    "a..b",
]


@pytest.mark.parametrize("host", LOOPBACK_NOTATIONS + OTHER_REFUSED)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_is_not_public_is_refused_in_every_notation(scheme: str, host: str) -> None:
    """Decimal, octal, hexadecimal, short, mapped, tunnelled: all are read as browsers read them."""
    assert check_target(f"{scheme}://{host}/hook", allow_private=False) is not None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "http:/example.com",
        "http://",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com\\@127.0.0.1/",
        "http://exam\nple.com/",
        "http://[::1/",
        "http://" + "a" * 9000,
    ],
)
def test_a_url_that_can_be_read_two_ways_is_refused(url: str) -> None:
    """Other schemes, user names, odd ports, control characters, backslashes and over-long URLs have no business."""
    assert check_target(url, allow_private=True) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?x=1",
        "http://example.com:8080",
        "https://8.8.8.8/",
        "http://134744072/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::808:808]/",
        "https://bücher.example/",
        "https://under_score.example/",
    ],
)
def test_a_public_target_is_allowed(url: str) -> None:
    """The guard does not stand in the way of ordinary receivers."""
    assert check_target(url, allow_private=False) is None


def test_the_private_setting_opens_private_networks_and_nothing_else() -> None:
    """Clouds keep metadata on link-local addresses: no setting opens these."""
    for url in ("http://127.0.0.1/", "http://10.0.0.7/", "http://[::1]/", "http://[fd00::1]/", "http://localhost/"):
        assert check_target(url, allow_private=True) is None
    for url in ("http://169.254.169.254/", "http://[fe80::1]/", "http://0.0.0.0/", "http://224.0.0.1/"):
        assert check_target(url, allow_private=True) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_notation(address: ipaddress.IPv4Address) -> None:
    """No notation opens what the plain one closes."""
    verdict = check_address(address, allow_private=False)
    number = int(address)
    octets = address.packed
    for host in (
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hex(octet) for octet in octets),
        ".".join(f"0{octet:o}" for octet in octets),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
    ):
        assert readable_host(host) == address
        assert (check_target(f"http://{host}/", allow_private=False) is None) == (verdict is None)
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert (check_address(mapped, allow_private=False) is None) == (verdict is None)


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_allowed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """The guard is never looser than the registries of special addresses."""
    if check_address(address, allow_private=False) is None:
        assert address.is_global or address in ipaddress.ip_network("64:ff9b::/96")
        assert not address.is_multicast


@given(st.text(max_size=60))
def test_any_text_gets_a_verdict(text: str) -> None:
    """Garbage is refused or allowed, never an exception."""
    check_target(text, allow_private=False)
    check_target(f"http://{text}/", allow_private=False)
