"""The corpus of tricks by which a URL leads a fetcher into somebody's network, built from rules; none may succeed.

Each case is a URL, what resolvers say of its names, and what the server answers. `CANARY` and `WEB` stand for the ports
of a run. Sources: the WHATWG URL standard (notations), the IANA registries of special-purpose addresses, the cloud
vendors' pages on their metadata services, RFC 6052, 3056, 4380, 5214 (tunnels), and the flaws that were reported of
other fetchers.
"""

# ruff: noqa: RUF001, S104 - look-alikes of ASCII and odd addresses are what this file is about

import dataclasses
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.ingress.web import PUBLIC_V4, PUBLIC_V6, Page, page

Answers = Mapping[str, Sequence[Sequence[str]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One trick."""

    name: str
    url: str
    answers: Answers = dataclasses.field(default_factory=dict[str, Sequence[Sequence[str]]])
    pages: Mapping[str, Page] = dataclasses.field(default_factory=dict[str, Page])
    not_followed: bool = False  # the answer itself may be had: what counts is that its hint to go on is not taken


def corpus() -> list[Case]:
    """Return every case; names are unique."""
    kinds: Sequence[Callable[[], Iterator[Case]]] = (
        _notations, _tunnels, _ipv6, _ranges, _names, _resolvers, _redirects, _hints, _parsers, _schemes, _ports,
        _credentials, _controls, _answers,
    )  # fmt: skip
    return [case for kind in kinds for case in kind()]


INSIDE = (
    "127.0.0.1", "169.254.169.254", "10.0.0.5", "172.16.3.4", "192.168.1.1", "100.100.100.200", "192.0.0.192",
    "168.63.129.16", "169.254.170.2",
)  # fmt: skip
_WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
_CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
_BOLD = str.maketrans("0123456789", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")


def _notations() -> Iterator[Case]:
    for text in INSIDE:
        address = ipaddress.IPv4Address(text)
        number, (a, b, c, d) = int(address), address.packed
        spellings = {
            "plain": text,
            "decimal": str(number),
            "hex": hex(number),
            "upper hex": f"0X{number:X}",
            "octal": f"0{number:o}",
            "padded octal": f"000000{number:o}",
            "dotted hex": f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
            "padded hex": f"0x{a:08x}.0x{b:08x}.0x{c:08x}.0x{d:08x}",
            "dotted octal": f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
            "long octal": f"{a:#05o}.{b:#05o}.{c:#05o}.{d:#05o}".replace("0o", "00"),
            "mixed": f"{a}.{b:#x}.0{c:o}.{d}",
            "two parts": f"{a}.{number & 0xFFFFFF}",
            "three parts": f"{a}.{b}.{number & 0xFFFF}",
            "two parts hex": f"{a:#x}.{number & 0xFFFFFF:#x}",
            "final dot": f"{text}.",
            "wide digits": text.translate(_WIDE),
            "circled digits": text.translate(_CIRCLED),
            "bold digits": text.translate(_BOLD),
            "ideographic dots": text.replace(".", "。"),
            "wide dots": text.replace(".", "．"),
            "half-wide dots": text.replace(".", "｡"),
            "soft hyphen": f"{text}\u00ad",
            "zero-width space": text.replace(".", ".\u200b", 1),
            "percent digits": "".join(f"%{ord(char):02x}" for char in text),
        }
        for kind, host in spellings.items():
            yield Case(f"notation {kind} of {text}", f"http://{host}:CANARY/x")


def _tunnels() -> Iterator[Case]:
    for text in INSIDE[:6]:
        number = int(ipaddress.IPv4Address(text))
        high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
        wrapped = {
            "mapped": f"::ffff:{text}",
            "mapped hex": f"::ffff:{high}:{low}",
            "mapped long": f"0000:0000:0000:0000:0000:FFFF:{high.upper()}:{low.upper()}",
            "compatible": f"::{text}",
            "translated": f"::ffff:0:{text}",
            "NAT64": f"64:ff9b::{high}:{low}",
            "NAT64 dotted": f"64:ff9b::{text}",
            "NAT64 local": f"64:ff9b:1::{high}:{low}",
            "6to4": f"2002:{high}:{low}::1",
            "Teredo": f"2001:0:{high}:{low}:8000:63bf:{~number >> 16 & 0xFFFF:x}:{~number & 0xFFFF:x}",
            "ISATAP": f"2606:4700::5efe:{high}:{low}",
            "ISATAP global": f"2606:4700::200:5efe:{high}:{low}",
        }
        for kind, host in wrapped.items():
            yield Case(f"tunnel {kind} of {text}", f"http://[{host}]:CANARY/x")
            if kind in {"mapped", "NAT64", "6to4", "ISATAP"}:
                yield Case(f"name with tunnel {kind} of {text}", "http://t.example/x", {"t.example": [[host]]})


def _ipv6() -> Iterator[Case]:
    for host in (
        "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::", "::0001", "fe80::1", "fe80::1%25lo",
        "fe80::1%lo", "fe80::a9fe:a9fe%25eth0", "::1%25lo", "2606:4700::1111%25lo", "fc00::1", "fd00:ec2::254",
        "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "3fff::1", "100::1",
        "5f00::1", "2001:10::1", "2001:20::1", "4000::1", "::2", "1::", "[::1]", "::1.", "v1.fe80",
    ):  # fmt: skip
        yield Case(f"IPv6 {host}", f"http://[{host}]:CANARY/x")
    yield Case("IPv6 without brackets", "http://::1:CANARY/x")
    yield Case("IPv6 with a name behind", "http://[::1].example:CANARY/x")
    yield Case("IPv6 with a name before", "http://a.example[::1]:CANARY/x")


def _ranges() -> Iterator[Case]:
    for host in (
        "0.0.0.0", "0.1.2.3", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.255.255.254", "169.254.0.1",
        "169.254.255.255", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.255.255", "198.18.0.1",
        "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255",
    ):  # fmt: skip
        yield Case(f"range {host}", f"http://{host}:CANARY/x")
        yield Case(f"name in range {host}", "http://r.example:CANARY/x", {"r.example": [[host]]})


def _names() -> Iterator[Case]:
    for host in (
        "localhost", "LOCALHOST", "localhost.", "a.localhost", "loc%61lhost", "local\u00adhost", "ｌｏｃａｌｈｏｓｔ",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "metadata", "metadata.google.internal",
        "metadata.google.internal.", "METADATA.GOOGLE.INTERNAL", "instance-data", "instance-data.ec2.internal",
        "metadata.azure.internal", "metadata.goog", "metadata.tencentyun.com", "metadata.oraclecloud.com",
        "metadata.packet.net", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local", "host.docker.internal", "gateway.docker.internal", "printer.local",
        "router.lan", "nas.home.arpa", "wiki.corp", "db.home", "api.intranet", "vault.private", "abcdefghij.onion",
        "postgres", "valkey", "redis", "minio", "consul.service.consul",
    ):  # fmt: skip
        yield Case(f"name {host}", f"http://{host}:CANARY/x")
    for host in ("127.0.0.1.nip.io", "10-0-0-1.sslip.io", "localtest.me", "lvh.me", "spoofed.burpcollaborator.net"):
        yield Case(f"public name of loopback {host}", f"https://{host}:CANARY/x", {host: [["127.0.0.1"]]})


def _resolvers() -> Iterator[Case]:
    lies: Mapping[str, Sequence[str]] = {
        "loopback": ["127.0.0.1"],
        "metadata": ["169.254.169.254"],
        "IPv6 loopback": ["::1"],
        "public then loopback": [PUBLIC_V4, "127.0.0.1"],
        "loopback then public": ["127.0.0.1", PUBLIC_V4],
        "public IPv6 then private": [PUBLIC_V6, "10.0.0.1"],
        "public IPv4 then IPv6 loopback": [PUBLIC_V4, "::1"],
        "one private among nine": [*["8.8.8.8"] * 9, "192.168.0.1"],
        "mapped": [f"::ffff:{'127.0.0.1'}"],
        "scoped": ["fe80::1%lo"],
        "scoped public": [f"{PUBLIC_V6}%lo"],
        "unspecified": ["0.0.0.0"],
        "IPv6 unspecified": ["::"],
        "no address": ["not an address"],
        "a name": ["localhost"],
        "a number": ["2130706433"],
        "a path": ["/var/run/docker.sock"],
        "a flood": ["8.8.8.8"] * 1000,
        "nothing": [],
        "the end of a CNAME chain inside": ["10.96.0.1"],
    }
    for kind, answer in lies.items():
        yield Case(f"resolver says {kind}", "http://dns.example:CANARY/x", {"dns.example": [answer]})
    turning: Sequence[tuple[str, Sequence[Sequence[str]]]] = (
        ("public, then loopback", [[PUBLIC_V4], ["127.0.0.1"]]),
        ("public, then metadata", [[PUBLIC_V4], ["169.254.169.254"]]),
        ("public, then both", [[PUBLIC_V4], [PUBLIC_V4, "127.0.0.1"]]),
        ("public, then IPv6 loopback", [[PUBLIC_V4], ["::1"]]),
        ("public, then mapped", [[PUBLIC_V4], ["::ffff:10.0.0.1"]]),
    )
    for kind, turns in turning:
        # The name changes between the first call and the one that its redirect asks for: TTL 0.
        again = {"/a": page("302 Found", "Location: http://turn.example:CANARY/b", "Connection: close")}
        yield Case(f"rebinding {kind}", "http://turn.example:WEB/a", {"turn.example": turns}, again)
    other = {"/a": page("307 Temporary Redirect", "Location: http://inside.example:CANARY/b")}
    yield Case("redirect to a private name", "http://ok.example/a", {"inside.example": [["10.0.0.1"]]}, other)


_INSIDE_URLS = (
    "http://127.0.0.1:CANARY/x", "http://169.254.169.254/latest/meta-data/", "http://2130706433:CANARY/",
    "http://[::ffff:127.0.0.1]:CANARY/", "http://localhost:CANARY/", "http://[::1]:CANARY/",
)  # fmt: skip
_REDIRECTS = ("301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect")


def _redirects() -> Iterator[Case]:
    for status in _REDIRECTS:
        for url in _INSIDE_URLS:
            yield _led(f"redirect {status} to {url}", status, url)
    for url in (
        "file:///etc/passwd", "gopher://127.0.0.1:CANARY/_x", "data:image/png;base64,iVBORw0KGgo=",
        "ftp://127.0.0.1:CANARY/", "dict://127.0.0.1:CANARY/x", "ldap://127.0.0.1:CANARY/", "javascript:alert(1)",
        "ws://127.0.0.1:CANARY/", "blob:http://127.0.0.1/x", "unix:///var/run/docker.sock", "//127.0.0.1:CANARY/x",
        "///127.0.0.1:CANARY/x", "\\\\127.0.0.1:CANARY\\x", "http://user@127.0.0.1:CANARY/",
        "http://ok.example@127.0.0.1:CANARY/", "http://user:word@ok.example/", "http://ok.example:6379/",
        "http://ok.example:22/", "http://127.0.0.1:CANARY\\@ok.example/", "http:127.0.0.1:CANARY", "http://", "",
        "http://[::1", "http://ok.example:99999/", "http://0x7f.1:CANARY/", "http://①②⑦.0.0.1:CANARY/",
        f"http://ok.example/{'a' * 9000}",
    ):  # fmt: skip
        yield _led(f"redirect to {url[:60]!r}", "302 Found", url)
    yield Case("redirect without a place", "http://ok.example/a", pages={"/a": page("302 Found")})
    yield Case(
        "redirect with bytes that are no text",
        "http://ok.example/a",
        pages={"/a": Page(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n")},
    )
    chain = {f"/{step}": _to(f"http://ok.example:WEB/{step + 1}") for step in range(20)}
    yield Case("endless chain", "http://ok.example/0", pages=chain)
    late = {"/0": _to("/1"), "/1": _to("/2"), "/2": _to("http://127.0.0.1:CANARY/x")}
    yield Case("inside at the end of a chain", "http://ok.example/0", pages=late)
    yield Case("loop", "http://ok.example/a", pages={"/a": _to("/a")})
    yield Case("loop of two", "http://ok.example/a", pages={"/a": _to("/b"), "/b": _to("/a")})
    two = {"/a": page("302 Found", "Location: http://ok.example/b", "Location: http://127.0.0.1:CANARY/x")}
    yield Case("two places in one redirect", "http://ok.example/a", pages=two)
    flood = page("302 Found", "Location: http://127.0.0.1:CANARY/x", then="flood")
    yield Case("redirect with an endless body", "http://ok.example/a", pages={"/a": flood})


def _to(url: str) -> Page:
    return page("302 Found", f"Location: {url}")


def _led(name: str, status: str, url: str) -> Case:
    encoded = url.encode().decode("latin-1")  # a Location goes over the wire as UTF-8
    return Case(name, "http://ok.example/a", pages={"/a": page(status, f"Location: {encoded}")})


def _hints() -> Iterator[Case]:
    html = b'<meta http-equiv="refresh" content="0;url=http://127.0.0.1:CANARY/x"><img src="http://127.0.0.1:CANARY/">'
    hints = {
        "meta refresh": page("200 OK", "Content-Type: text/html", body=html),
        "Refresh header": page("200 OK", "Refresh: 0; url=http://127.0.0.1:CANARY/x"),
        "Location at 200": page("200 OK", "Location: http://127.0.0.1:CANARY/x"),
        "Link preload": page("200 OK", "Link: <http://127.0.0.1:CANARY/x>; rel=preload"),
        "Content-Location": page("200 OK", "Content-Location: http://127.0.0.1:CANARY/x"),
        "Alt-Svc": page("200 OK", 'Alt-Svc: h2="127.0.0.1:CANARY"'),
        "early hints": Page(
            b"HTTP/1.1 103 Early Hints\r\nLink: <http://127.0.0.1:CANARY/x>; rel=preload\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        ),
    }
    for kind, hint in hints.items():
        yield Case(f"hint {kind}", "http://ok.example/a", pages={"/a": hint}, not_followed=True)
    for status in ("201 Created", "300 Multiple Choices", "304 Not Modified", "305 Use Proxy", "306 Switch Proxy",
                   "401 Unauthorized", "407 Proxy Authentication Required", "421 Misdirected Request"):  # fmt: skip
        answer = page(status, "Location: http://127.0.0.1:CANARY/x", "WWW-Authenticate: Basic realm=x")
        yield Case(f"status {status} with a place", "http://ok.example/a", pages={"/a": answer})


def _parsers() -> Iterator[Case]:
    for url in (
        "http://127.0.0.1:CANARY\\@ok.example/", "http://ok.example\\@127.0.0.1:CANARY/",
        "http://ok.example#@127.0.0.1:CANARY/ ", "http://127.0.0.1:CANARY#@ok.example/",
        "http://127.0.0.1:CANARY?@ok.example/", "http://ok.example@127.0.0.1:CANARY/",
        "http://ok.example:80@127.0.0.1:CANARY/", "http://ok.example%40127.0.0.1:CANARY/",
        "http://127.0.0.1%2f@ok.example:CANARY/", "http://127.0.0.1%00.ok.example:CANARY/",
        "http://127.0.0.1%20.ok.example:CANARY/", "http://127.0.0.1%0d%0a.ok.example:CANARY/",
        "http://127%2e0%2e0%2e1:CANARY/", "http://localhost%2e:CANARY/", "http://%6c%6f%63%61%6c%68%6f%73%74:CANARY/",
        "http://127.0.0.1;ok.example:CANARY/", "http://127.0.0.1,ok.example:CANARY/", "http://127.0.0.1:CANARY:80/",
        "http://127.0.0.1:+CANARY/", "http://127.0.0.1: CANARY/", "http://127.0.0.1::CANARY/",
        "http://127.0.0.1:CANARY／ok.example/", "http://ok.example／@127.0.0.1:CANARY/",
        "http://ok.example＠127.0.0.1:CANARY/", "http://127.0.0.1＃@ok.example:CANARY/",
        "http://127.0.0.1？@ok.example:CANARY/", "http:/\\127.0.0.1:CANARY/", "http:\\\\127.0.0.1:CANARY\\",
        "http:////127.0.0.1:CANARY/", "http:127.0.0.1:CANARY/", "http:/127.0.0.1:CANARY/", "//127.0.0.1:CANARY/",
        "127.0.0.1:CANARY/x", "/etc/passwd", "http://[::1]@ok.example:CANARY/", "http://[::1]ok.example:CANARY/",
        "http://ok.example:CANARY@[::1]/", "http://{127.0.0.1}:CANARY/", "http://$(hostname):CANARY/",
        "http://-127.0.0.1:CANARY/", "http://127..0.0.1:CANARY/", "http://127.0.0.1..:CANARY/",
        "http://256.256.256.256:CANARY/", "http://127.0.0.1.0:CANARY/", "http://0x7f000001.:CANARY/",
        "http://0x:CANARY/", "http://0:CANARY/", "http://4294967296:CANARY/", "http://127.0.0.08:CANARY/",
        "http://ok.example:CANARY\\..\\x@[::1]/", "http://xn--a:CANARY/", "http://\u2488.example:CANARY/",
        "http://localhost\u3002:CANARY/", "http://127。1:CANARY/", "http://㋿.example:CANARY/\ud800",
    ):  # fmt: skip
        yield Case(f"parser {url!r}", url, _ALL_INSIDE)


# Whoever reads these hosts as names gets loopback for them.
_ALL_INSIDE: Answers = {"ok.example": [["127.0.0.1"]], "xn--a": [["127.0.0.1"]]}


def _schemes() -> Iterator[Case]:
    for scheme in (
        "file", "ftp", "ftps", "sftp", "tftp", "gopher", "dict", "ldap", "ldaps", "jar", "netdoc", "ws", "wss", "ssh",
        "smb", "unix", "http+unix", "docker", "s3", "gs", "az", "view-source:http", "feed:http", "php", "phar",
        "expect", "concat", "subfile", "crypto", "hls+http", "rtmp", "rtsp", "srt", "udp", "tcp", "about", "mailto",
        "javascript", "vbscript", "blob:http", "filesystem:http", "chrome", "resource", "httpx", "htt p", "",
    ):  # fmt: skip
        yield Case(f"scheme {scheme}", f"{scheme}://127.0.0.1:CANARY/x")
    for url in ("file:///etc/passwd", "file://localhost/etc/passwd", "file:/etc/passwd", "concat:/etc/passwd|x",
                "urn:ietf:rfc:2648", "HTTP//127.0.0.1:CANARY"):  # fmt: skip
        yield Case(f"scheme of {url}", url)


def _ports() -> Iterator[Case]:
    for port in (0, 7, 19, 21, 22, 23, 25, 53, 69, 110, 111, 135, 139, 143, 161, 389, 445, 465, 512, 514, 587, 636, 873,
                 993, 1433, 1521, 2049, 2181, 2375, 2379, 3306, 3389, 5060, 5432, 5672, 5900, 6000, 6379, 6443, 6667,
                 8500, 9042, 9092, 9200, 10250, 11211, 27017):  # fmt: skip
        yield Case(f"port {port}", f"http://ok.example:{port}/x")
    for port in ("-1", "65536", "99999", "80a", "０", "٨٠", "1e3", "80;22", "080:22", "%38%30"):
        yield Case(f"port {port}", f"http://ok.example:{port}/x")


def _credentials() -> Iterator[Case]:
    for user in ("user", "user:", ":word", "user:word", ":", "", "ok.example:80", "a%40b", "user:wo:rd"):
        yield Case(f"credentials {user}@", f"http://{user}@ok.example/x")
        yield Case(f"credentials {user}@ inside", f"http://{user}@127.0.0.1:CANARY/x")


def _controls() -> Iterator[Case]:
    inject = "HTTP/1.1%0d%0aHost: 127.0.0.1"
    yield Case("encoded line ends in a path stay encoded", f"http://127.0.0.1:CANARY/ {inject}")
    for name, char in {"CR": "\r", "LF": "\n", "CRLF": "\r\n", "tab": "\t", "NUL": "\0", "space": " ", "DEL": "\x7f",
                       "vertical tab": "\v", "escape": "\x1b"}.items():  # fmt: skip
        yield Case(f"{name} in the path", f"http://ok.example/x{char}Host: inside")
        yield Case(f"{name} in the host", f"http://127.0.{char}0.1:CANARY/")
        yield Case(f"{name} before the URL", f"{char}http://127.0.0.1:CANARY/")
        yield Case(f"{name} in the query", f"http://ok.example/?a={char}b")
    yield Case("a huge path", "http://ok.example/" + "a" * 9_000)
    yield Case("a huge host", "http://" + "a." * 5_000 + "example/")
    yield Case("a long label", "http://" + "a" * 64 + ".example/")
    yield Case("a huge query", "http://ok.example/?" + "a" * 1_000_000)
    yield Case("a huge number", "http://" + "9" * 5_000 + ":CANARY/")


def _answers() -> Iterator[Case]:
    zeros = b"\x1f\x8b" + bytes(64)
    odd: Mapping[str, Page] = {
        **{
            f"encoding {coding}": page("200 OK", f"Content-Encoding: {coding}", body=zeros)
            for coding in ("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip")
        },
        "length over the cap": page("200 OK", "Content-Length: 99999999999", then="hang"),
        "length of sixty digits": page("200 OK", "Content-Length: " + "9" * 60, then="hang"),
        "length below nothing": page("200 OK", "Content-Length: -5", body=b"x"),
        "length no number": page("200 OK", "Content-Length: five", body=b"x"),
        "two lengths": page("200 OK", "Content-Length: 1", "Content-Length: 2", body=b"xy"),
        "length longer than the body": page("200 OK", "Content-Length: 100", body=b"short"),
        "length and chunks": page("200 OK", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"zz\r\n"),
        "a chunk that is no number": page("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
        "a chunk below nothing": page("200 OK", "Transfer-Encoding: chunked", body=b"-1\r\nabc\r\n0\r\n\r\n"),
        "a chunk without end": page("200 OK", "Transfer-Encoding: chunked", body=b"ffffffffff\r\nabc", then="flood"),
        "chunks broken off": page("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nabc"),
        "transfer encoding unknown": page("200 OK", "Transfer-Encoding: gzip, chunked", body=b"zz\r\n"),
        "an endless body": page("200 OK", then="flood"),
        "a dripping body": page("200 OK", "Content-Length: 1000000", then="drip"),
        "a body that never comes": page("200 OK", "Content-Length: 10", then="hang"),
        "silence": Page(b"", "hang"),
        "half a head": Page(b"HTTP/1.1 200 OK\r\nContent-", "hang"),
        "a dripping head": Page(b"HTTP/1.1 200 OK\r\nX: ", "drip"),
        "an endless head": Page(b"HTTP/1.1 200 OK\r\nX: ", "flood"),
        "a thousand headers": page("200 OK", *[f"X-{number}: {'y' * 100}" for number in range(2000)], then="flood"),
        "early hints for ever": Page(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "hang"),
        "another protocol": page("101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade", then="hang"),
        "no HTTP at all": Page(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "the HTTP of 1991": Page(b"<html>hello</html>"),
        "a reset": Page(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "reset"),
        "a goodbye": Page(b""),
        "a part unasked": page("206 Partial Content", "Content-Range: bytes 0-3/99999999", body=b"abcd"),
        "many parts unasked": page("206 Partial Content", "Content-Type: multipart/byteranges", body=b"--x"),
        "no content": page("204 No Content"),
        "reset content": page("205 Reset Content"),
        "not satisfiable": page("416 Range Not Satisfiable", "Content-Range: bytes */4"),
        "not found": page("404 Not Found", body=b"\x89PNG\r\n\x1a\n"),
        "an error": page("500 Internal Server Error", body=b"\x89PNG\r\n\x1a\n"),
        "status 999": page("999 Odd", body=b"x"),
    }  # fmt: skip
    for kind, answer in odd.items():
        yield Case(f"answer: {kind}", "http://ok.example/a", pages={"/a": answer})
