"""Networks of keys, and the address a call came from."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.fleet.networks import (
    client_address,
    contains,
    parse_address,
    parse_network,
    parse_networks,
    prefix_of,
)

PROXIES = parse_networks("t", ["10.0.0.0/8", "fd00::/8"])
_V4 = st.ip_addresses(v=4)
_V6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 192.0.2.7 ", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("10.0.0.1/8", None),
        ("10.0.0.0/33", None),
        ("example.com", None),
        ("", None),
    ],
)
def test_a_network_is_cidr_without_stray_bits(text: str, shown: str | None) -> None:
    """One address is a network of its own; IPv4 written as IPv6 is IPv4."""
    network = parse_network(text)
    assert (None if network is None else str(network)) == shown


def test_what_is_no_network_is_named_with_its_field() -> None:
    """The message says how to write it."""
    with pytest.raises(UsageError, match=r"networks: '10\.0\.0\.1/8' is no network"):
        parse_networks("networks", ["192.0.2.0/24", "10.0.0.1/8"])
    with pytest.raises(UsageError, match="at most"):
        parse_networks("networks", [f"10.0.0.{number}" for number in range(101)])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("1.2.3", None),
    ],
)
def test_an_address_is_read_with_port_brackets_and_zone(text: str, address: str | None) -> None:
    """As the different proxies write it."""
    found = parse_address(text)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # a stranger's header is not believed
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # what the caller wrote stands further left
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9, 10.2.2.2"], "203.0.113.9"),  # several headers, several proxies
        ("10.0.0.1", ["10.9.9.9, 10.2.2.2"], "10.9.9.9"),  # nobody but proxies: the first of them
        ("10.0.0.1", ["203.0.113.9, unknown"], None),  # what cannot be read is nobody
        ("10.0.0.1", [""], None),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["[2001:db8::5]:1234"], "2001:db8::5"),
        ("garbage", ["203.0.113.9"], None),
    ],
)
def test_the_client_is_the_rightmost_address_that_no_proxy_of_ours_has(
    peer: str, forwarded: list[str], expected: str | None
) -> None:
    """Whatever a caller writes into the header itself changes nothing."""
    found = client_address(peer, forwarded, PROXIES)
    assert (None if found is None else str(found)) == expected


@given(_V4, st.lists(_V4 | _V6 | st.text(max_size=8), max_size=5))
def test_without_trusted_proxies_the_header_never_counts(peer: ipaddress.IPv4Address, said: list[object]) -> None:
    """The default."""
    assert client_address(str(peer), [", ".join(map(str, said))], ()) == peer


@pytest.mark.threat("API2:2023", "AML.T0012")
@given(st.text(max_size=40), _V4 | _V6)
def test_a_caller_cannot_write_itself_another_address(
    written: str, caller: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """Whatever stands left of what our proxy appended is ignored."""
    address = parse_address(str(caller))
    assert address is not None
    found = client_address("10.0.0.1", [f"{written}, {caller}"], PROXIES)
    if not contains(PROXIES, address):
        assert found == address


@given(_V4)
def test_ipv4_written_as_ipv6_is_in_the_same_networks(address: ipaddress.IPv4Address) -> None:
    """No second spelling slips past a list, or is locked out by one."""
    mapped = parse_address(f"::ffff:{address}")
    assert mapped is not None
    assert mapped == address
    assert contains(parse_networks("t", [f"{address}/32"]), mapped)


def test_one_party_is_an_ipv4_address_or_an_ipv6_64() -> None:
    """An IPv6 subscriber has a whole /64 to call from."""
    one, two = ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("2001:db8::ffff:2")
    assert prefix_of(one) == prefix_of(two) == "2001:db8::/64"
    assert prefix_of(ipaddress.ip_address("192.0.2.1")) == "192.0.2.1"
