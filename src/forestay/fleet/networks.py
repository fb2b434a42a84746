"""Networks from which a key may be used, and which address a call came from.

Pure. IPv4 addresses written as IPv6 (`::ffff:10.0.0.1`) are the IPv4 addresses that they mean. `X-Forwarded-For` is
believed only from proxies that the operator names, and of it only what those proxies added themselves: the rightmost
address that is none of theirs (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For). Called
by the gateway's authentication and by whoever issues keys.
"""

import functools
import ipaddress
from collections.abc import Iterable, Sequence

from forestay.errors import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_NETWORKS = 100
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_MAX_HOPS = 50
_MAX_TEXT = 128  # of an address with brackets, zone and port


def parse_network(text: str) -> Network | None:
    """Read CIDR or one address; None when it is neither, or has bits set beyond its prefix."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((address, network.prefixlen - 96))
    return network


def parse_networks(field: str, texts: Iterable[str]) -> tuple[Network, ...]:
    """Read a list from outside; UsageError names the first that is no network."""
    found: list[Network] = []
    for text in texts:
        network = parse_network(text)
        if network is None:
            mend = "write CIDR with no bits beyond the prefix, such as 10.1.0.0/16 or 2001:db8::/32, or one address"
            raise UsageError(field, f"{text[:60]!r} is no network; {mend}")
        found.append(network)
    if len(found) > MAX_NETWORKS:
        raise UsageError(field, f"at most {MAX_NETWORKS} of them")
    return tuple(dict.fromkeys(found))


def parse_address(text: str) -> Address | None:
    """Read an address, with or without a port, brackets or zone; None when it is none."""
    return _address_in(text) if len(text) <= _MAX_TEXT else None


@functools.lru_cache(maxsize=4096)  # the same callers call again, and reading costs more than the rest of a check
def _address_in(text: str) -> Address | None:
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def contains(networks: Sequence[Network], address: Address) -> bool:
    """Tell whether one of the networks holds the address."""
    return any(address in network for network in networks)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """Return who called: the peer, or what trusted proxies say of it; None when that cannot be known.

    `forwarded`: the values of all `X-Forwarded-For` headers in their order.
    """
    address = parse_address(peer)
    if address is None or not trusted or not contains(trusted, address):
        return address
    hops = [hop for value in forwarded for hop in value.split(",")][-_MAX_HOPS:]
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None or not contains(trusted, address):
            return address
    return address


def prefix_of(address: Address) -> str:
    """Return the network that one party can be taken to own: the IPv4 address, or its IPv6 /64."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
