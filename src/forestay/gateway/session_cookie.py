"""The cookie that carries a browser's session, and the guard against requests that other sites make a browser send.

HttpOnly, SameSite=Strict, for this host alone; on TLS also Secure, by a name that browsers accept from this very host
only (`__Host-`, https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis). A call that changes something and
is proven by the cookie must come with the header X-Forestay-CSRF, which a page of another site cannot send without our
leave (CORS), or name our own origin. Pure over an ASGI scope. Called by the admin API.
"""

from urllib.parse import urlsplit

from starlette.types import Scope

from forestay.gateway.responses import Header
from forestay.gateway.routing import host_of, scope_scheme

CSRF_HEADER = b"x-forestay-csrf"
_NAMES = {"https": b"__Host-forestay-session", "http": b"forestay-session"}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def cookie_of(scope: Scope, name: bytes | None = None) -> str | None:
    """Return the value of the session's cookie, or of another; None without one."""
    name = name or _NAMES[scope_scheme(scope)]
    for header, value in scope["headers"]:
        if header == b"cookie":
            for pair in value.split(b";"):
                key, _, text = pair.strip().partition(b"=")
                if key == name:
                    return text.strip(b'"').decode("latin-1") or None
    return None


def set_cookie(scope: Scope, token: str, life_seconds: float) -> Header:
    """Return the header that hands the session to the browser."""
    scheme = scope_scheme(scope)
    return _header(scheme, _NAMES[scheme], token.encode("latin-1"), life_seconds, b"Strict")


def clear_cookie(scope: Scope) -> Header:
    """Return the header that takes the session from the browser."""
    return set_cookie(scope, "", 0)


def set_flow_cookie(scope: Scope, name: bytes, value: str, life_seconds: float) -> Header:
    """Return the header of a cookie that comes back from another site's redirect: Lax, and short-lived."""
    return _header(scope_scheme(scope), name, value.encode("latin-1"), life_seconds, b"Lax")


def is_ours(scope: Scope, public_url: str) -> bool:
    """Tell whether a call that a cookie proves was made by a page of ours, or changes nothing."""
    if scope["method"] in _SAFE:
        return True
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if headers.get(CSRF_HEADER):
        return True
    origin = headers.get(b"origin", b"").decode("latin-1")
    return bool(origin) and origin == own_origin(scope, public_url)


def own_origin(scope: Scope, public_url: str) -> str:
    """Return the origin under which browsers know this gateway."""
    if public_url:
        parts = urlsplit(public_url)
        return f"{parts.scheme}://{parts.netloc}"
    return f"{scope_scheme(scope)}://{host_of(scope)}"


def _header(scheme: str, name: bytes, value: bytes, life_seconds: float, same_site: bytes) -> Header:
    parts = [name + b"=" + value, b"Path=/", b"HttpOnly", b"SameSite=" + same_site, b"Max-Age=%d" % life_seconds]
    if scheme == "https":
        parts.append(b"Secure")
    return (b"set-cookie", b"; ".join(parts))
