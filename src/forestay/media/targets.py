"""Which addresses the platform may call on someone else's word: the guard against server-side request forgery.

Pure. A URL is judged as a browser would read it (WHATWG URL: `2130706433`, `0x7f.1` and `0177.0.0.1` are all
127.0.0.1), and an address by every address it may stand for (IPv4 inside IPv6, NAT64, 6to4, Teredo). Fails closed:
what cannot be read is refused. Callers: `fetch` (each hop, each address dialled), the gateway (webhook at submit).
"""

import ipaddress
import re
import unicodedata
import urllib.parse
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

MAX_URL = 8192
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_DOTS = str.maketrans({"。": ".", "．": ".", "｡": "."})  # noqa: RUF001 - IDNA reads these as dots (UTS 46)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_ALWAYS_REFUSED_V4 = (ipaddress.IPv4Network("192.88.99.0/24"), ipaddress.IPv4Network("192.0.0.0/24"))
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1/128", "fc00::/7")
)


def check_target(url: str, allow_private: bool) -> str | None:
    """Return why `url` may not be called, None when it may be tried; names are judged again once resolved."""
    parsed = _parsed(url)
    if isinstance(parsed, str):
        return parsed
    host = readable_host(parsed.hostname or "")
    if host is None:
        return f"the host {parsed.hostname!r} is not a host name or address"
    if isinstance(host, str):
        if not allow_private and (host == "localhost" or host.endswith((".localhost", ".local", ".internal"))):
            return f"the host {host!r} is a private name"
        return None
    return check_address(host, allow_private)


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
    labels = text.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    try:
        ascii_name = text.encode("ascii").decode() if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        return None
    fits = len(ascii_name) <= 253 and all(_LABEL.fullmatch(label) for label in ascii_name.split("."))
    return ascii_name if fits else None


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
        "the URL names no host or port 0": not parts.hostname or port == 0,
    }
    return next((reason for reason, found in faults.items() if found), parts)


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
    if address.sixtofour is not None or address.teredo is not None or address in _NAT64_LOCAL:
        return [None]
    if address in _COMPATIBLE and int(address) > 0xFFFF:
        return [None]
    return [address]


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        if any(address in network for network in _ALWAYS_REFUSED_V4):
            return False
    elif address.is_site_local:
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )
