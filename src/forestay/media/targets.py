"""Which addresses the platform may call on someone else's word: the guard against server-side request forgery.

Pure. A URL is judged as a browser would read it (WHATWG URL: `2130706433`, `0x7f.1` and `0177.0.0.1` are all
127.0.0.1), and an address by every address it may stand for (IPv4 inside IPv6, NAT64, 6to4, Teredo, ISATAP). Fails
closed: what cannot be read is refused. What was judged is what is called: `read_target` gives the URL back in the one
form that has one reading. Callers: `fetch` (each hop, each address dialled), the gateway (webhook and upload policy at
submit).
"""

import dataclasses
import ipaddress
import re
import unicodedata
import urllib.parse
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

MAX_URL = 8192
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_AS_IT_CAME = "".join(map(chr, range(0x21, 0x7F)))  # signed URLs may not change by a character
_DOTS = str.maketrans({"。": ".", "．": ".", "｡": "."})  # noqa: RUF001 - IDNA reads these as dots (UTS 46)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has opened for global use; NAT64 is read before
_ALWAYS_REFUSED_V4 = (
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's host agent, on a public address
)
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")  # RFC 9637, newer than the tables of Python 3.11
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # upper half of the interface identifier (RFC 5214): IPv4 in the lower
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1/128", "fc00::/7")
)
# Names that mean something inside somebody's network only (RFC 6761, 6762, 8375, ICANN's private-use `internal`, and
# those that ICANN will not delegate because they leak from private networks).
_PRIVATE_SUFFIXES = (
    ".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private", ".lan", ".home", ".home.arpa",
    ".corp", ".mail", ".svc", ".onion",
)  # fmt: skip
# Ports that no media server uses and where an HTTP request means something to another protocol: the list that browsers
# keep (https://fetch.spec.whatwg.org/#port-blocking), then databases, brokers and control planes.
REFUSED_PORTS = frozenset(
    {
        0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
        5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
        445, 873, 1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5900, 5984, 6379, 6443, 8500, 9042,
        9092, 9200, 9300, 10250, 10255, 11211, 27017, 27018, 27019,
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be tried, in the form in which it was judged."""

    url: str  # ASCII; the host as judged (an address in plain notation, or a name in Punycode), no fragment
    scheme: str
    host: str  # without brackets


def read_target(url: str, allow_private: bool) -> Target | str:
    """Return the URL to call, or why it may not be called; a name is judged again once it is resolved."""
    parsed = _parsed(url)
    if isinstance(parsed, str):
        return parsed
    host = readable_host(parsed.hostname or "")
    if host is None:
        return f"the host {parsed.hostname!r} is not a host name or address"
    reason = _name_fault(host, allow_private) if isinstance(host, str) else check_address(host, allow_private)
    return reason or _target(parsed, host)


def check_target(url: str, allow_private: bool) -> str | None:
    """Return why `url` may not be called, None when it may be tried; names are judged again once resolved."""
    read = read_target(url, allow_private)
    return read if isinstance(read, str) else None


def check_address(address: Address, allow_private: bool) -> str | None:
    """Return why `address` may not be dialled, None when it may.

    `allow_private` opens loopback and private networks (RFC 1918, RFC 4193), never link-local addresses, where clouds
    keep their metadata services, nor multicast and reserved ones.
    """
    for candidate in _readings(address):
        if candidate is None:
            return f"{address} is a tunnel address"
        if allow_private and any(candidate in network for network in _PRIVATE):
            continue
        if not _is_public(candidate):
            return f"{address} is not a public address"
    return None


def readable_host(host: str) -> Address | str | None:
    """Read a URL's host: an address in any notation, a plain lower-case ASCII name, or None when it is neither."""
    text = unicodedata.normalize("NFKC", host.translate(_DOTS)).strip().lower().removesuffix(".")
    if ":" in text:
        return _ipv6(text.removeprefix("[").removesuffix("]"))
    try:
        name = text if text.isascii() else text.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        return None
    labels = name.split(".")  # only now: IDNA takes invisible characters out, and what is left may be a number
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    return name if len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels) else None


def _parsed(url: str) -> urllib.parse.SplitResult | str:
    """Split a URL that one reads one way only; anything else gives the reason against it."""
    if len(url) > MAX_URL:
        return f"the URL is longer than {MAX_URL} characters"
    if any(char <= " " or char in "\\\x7f" for char in url):
        return "the URL holds spaces, control characters or backslashes"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL cannot be read"
    faults = {
        "the URL's scheme is not http or https": parts.scheme not in {"http", "https"},
        "the URL carries a user name or password": parts.username is not None or parts.password is not None,
        "the URL names no host": not parts.hostname,
        f"port {port} is not one that media or webhooks are served on": port in REFUSED_PORTS,
        "the URL holds characters that no encoding has": not _encodable(url),
    }
    return next((reason for reason, found in faults.items() if found), parts)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_fault(host: str, allow_private: bool) -> str | None:
    if allow_private:
        return None
    private = host == "localhost" or "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return f"the host {host!r} is a private name" if private else None


def _target(parts: urllib.parse.SplitResult, host: Address | str) -> Target:
    shown = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    authority = shown if parts.port is None else f"{shown}:{parts.port}"
    path = urllib.parse.quote(parts.path or "/", safe=_AS_IT_CAME)
    query = urllib.parse.quote(parts.query, safe=_AS_IT_CAME)
    url = f"{parts.scheme}://{authority}{path}{'?' if query else ''}{query}"
    return Target(url, parts.scheme, str(host))


def _ipv6(text: str) -> IPv6Address | None:
    try:
        return None if "%" in text else IPv6Address(text)
    except ValueError:
        return None


def _ipv4(labels: list[str]) -> IPv4Address | None:
    """Read one to four decimal, octal or hexadecimal numbers as inet_aton and browsers do."""
    if len(labels) > 4:
        return None
    numbers: list[int] = []
    for label in labels:
        if not _NUMBER.fullmatch(label):
            return None
        try:
            numbers.append(_number(label))
        except ValueError:
            return None
    *front, last = numbers
    if any(number > 0xFF for number in front) or last >= 1 << (8 * (4 - len(front))):
        return None
    value = last
    for position, number in enumerate(front):
        value |= number << (8 * (3 - position))
    return IPv4Address(value)


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8) if len(label) > 1 and label.startswith("0") else int(label, 10)


def _readings(address: Address) -> list[Address | None]:
    """Return every address that a network on the way may read in this one; None for a tunnel that hides its target."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [None if _is_tunnel(address) else address]


def _is_tunnel(address: IPv6Address) -> bool:
    number = int(address)
    return (
        address.sixtofour is not None
        or address.teredo is not None
        or address in _NAT64_LOCAL
        or (address in _COMPATIBLE and number > 0xFFFF)
        or (number >> 32) & 0xFFFFFFFF in _ISATAP
        or address.scope_id is not None
    )


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        if any(address in network for network in _ALWAYS_REFUSED_V4):
            return False
    elif address not in _GLOBAL_UNICAST or address in _DOCUMENTATION:
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )
