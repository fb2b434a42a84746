"""Where a call goes: host name, port or prefix -> surface; path -> app id, endpoint or request id; and URLs back.

fal's clients tell sync from queue by the host name alone (contract, fact 5), so a surface is chosen by Host header, by
the port that was connected to, or by our path prefix, in that order. Pure. Called by `asgi` for every call.
"""

import dataclasses
import enum
import functools
import re
from collections.abc import Mapping

from starlette.types import Scope

from forestay.ids import ModelId, RequestId, is_model_id, parse_request_id
from forestay.settings import Gateway

ORIGIN_KEY = "forestay.origin"  # set by the JS proxy on the scope that it dispatches: the base that its caller used
NAMESPACES = frozenset({"workflows", "comfy"})
_LEGACY = re.compile(r"([0-9]+)-([A-Za-z0-9_.-]+)")
_ENDPOINT = re.compile(r"(/[A-Za-z0-9_.~:@!$&'()*+,;=%-]+)+")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
MAX_ENDPOINT = 256


class Surface(enum.StrEnum):
    """Which of fal's hosts a call is for."""

    RUN = "run"
    QUEUE = "queue"
    REST = "rest"
    CDN = "cdn"
    ROOT = "root"  # our own: health, admin, proxy, documentation


_BY_HOST: Mapping[str, Surface] = {
    "fal.run": Surface.RUN,
    "queue.fal.run": Surface.QUEUE,
    "rest.fal.ai": Surface.REST,
    "rest.alpha.fal.ai": Surface.REST,
    "v3.fal.media": Surface.CDN,
    "fal.media": Surface.CDN,
}
_SCHEMES: Mapping[str, str] = {"ws": "http", "wss": "https"}
_BY_PREFIX: Mapping[str, Surface] = {
    "run": Surface.RUN,
    "queue": Surface.QUEUE,
    "rest": Surface.REST,
    "cdn": Surface.CDN,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bases:
    """URL bases, without a closing slash, under which the caller of this call reaches us."""

    run: str
    queue: str
    rest: str
    cdn: str

    @property
    def media(self) -> str:
        """Return the base of media URLs, with its closing slash."""
        return f"{self.cdn}/files/"


FAL_BASES = Bases("https://fal.run", "https://queue.fal.run", "https://rest.fal.ai", "https://v3.fal.media")


@dataclasses.dataclass(frozen=True, slots=True)
class AppPath:
    """A call to a model: submit, run, stream or realtime."""

    model_id: ModelId
    endpoint: str  # "/", "/edit", "/realtime"


class Operation(enum.StrEnum):
    """What is asked of an existing request."""

    STATUS = "status"
    STATUS_STREAM = "status_stream"
    RESULT = "result"
    CANCEL = "cancel"


@dataclasses.dataclass(frozen=True, slots=True)
class RequestPath:
    """A call about one request; `app` is what the URL says before `/requests/`."""

    app: ModelId
    request_id: RequestId
    text: str  # the id as text
    operation: Operation


def surface_of(path: str, host: str, port: int, ports: Mapping[int, Surface]) -> tuple[Surface, str]:
    """Choose the surface and return it with the path that is left; `ports` names listeners bound to one surface."""
    name = host.partition(":")[0]
    by_host = _BY_HOST.get(name)
    if by_host is not None:
        return by_host, path
    if ports and port in ports:
        return ports[port], path
    first, _, rest = path[1:].partition("/")
    by_prefix = _BY_PREFIX.get(first)
    if by_prefix is not None:
        return by_prefix, f"/{rest}"
    if name.endswith(".fal.run"):
        return Surface.RUN, path
    return Surface.ROOT, path


def port_of(scope: Scope) -> int:
    """Return the port that was connected to, 0 when the server does not say; granian writes it as text."""
    server: tuple[str, int | str | None] | None = scope.get("server")
    return int(server[1]) if server is not None and server[1] is not None else 0


@functools.lru_cache(maxsize=1024)
def read_host(value: bytes) -> str:
    """Return a Host header in lower case, empty when it is not a host."""
    text = value.decode("latin-1").lower()
    return text if _HOST.fullmatch(text) else ""


def host_of(scope: Scope) -> str:
    """Return the call's host in lower case, empty when absent or not a host."""
    return next((read_host(value) for name, value in scope["headers"] if name == b"host"), "")


def bases_of(scope: Scope, host: str, settings: Gateway) -> Bases:
    """Derive the bases for the answer: fal's names when called by them, else the public URL, else the Host header."""
    origin: str | None = scope.get(ORIGIN_KEY)
    if origin is None:
        if host.partition(":")[0] in _BY_HOST:
            return FAL_BASES
        origin = settings.public_url or f"{scope_scheme(scope)}://{host or 'localhost'}"
    return _bases(origin.rstrip("/"))


@functools.lru_cache(maxsize=1024)
def _bases(origin: str) -> Bases:
    return Bases(f"{origin}/run", f"{origin}/queue", f"{origin}/rest", f"{origin}/cdn")


def scope_scheme(scope: Scope) -> str:
    """Return http or https as the caller saw it: `X-Forwarded-Proto` of a proxy before us, else the listener's."""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-proto" and value in {b"http", b"https"}:
            return "https" if value == b"https" else "http"
    scheme: str = scope.get("scheme", "http")
    return _SCHEMES.get(scheme, scheme)


@functools.lru_cache(maxsize=4096)
def parse_app_path(path: str) -> AppPath | None:
    """Read `/owner/alias[/endpoint]`, `/workflows/owner/alias...` or legacy `/12345-alias...`; None when it is none.

    A namespace becomes part of the owner, `workflows.owner/alias`: that is how a spec declares such a model.
    """
    parts = path.strip("/").split("/")
    legacy = _LEGACY.fullmatch(parts[0])
    if legacy is not None and len(parts) == 1:  # as the clients: an id with a slash is never legacy
        parts = [legacy.group(1), legacy.group(2)]
    if parts[0] in NAMESPACES:
        parts = [f"{parts[0]}.{parts[1]}", *parts[2:]] if len(parts) > 1 else parts
    if len(parts) < 2:
        return None
    model_id = f"{parts[0]}/{parts[1]}"
    endpoint = "/" + "/".join(parts[2:])
    if not is_model_id(model_id) or len(endpoint) > MAX_ENDPOINT:
        return None
    if endpoint != "/" and (not _ENDPOINT.fullmatch(endpoint) or "/../" in f"{endpoint}/" or "/./" in f"{endpoint}/"):
        return None
    return AppPath(ModelId(model_id), endpoint)


def has_request_segment(path: str) -> bool:
    """Tell whether the path is about a request rather than a model."""
    return "/requests/" in path


@functools.lru_cache(maxsize=8192)  # a client polls one path many times
def parse_request_path(path: str) -> RequestPath | None:
    """Read `.../requests/{id}[/status[/stream] | /response | /cancel]`; None when the id or the rest is not ours."""
    before, _, after = path.partition("/requests/")
    app = parse_app_path(before)
    id_text, _, rest = after.partition("/")
    request_id = parse_request_id(id_text) if len(id_text) == 36 else None
    operation = _OPERATIONS.get(rest.strip("/"))
    if app is None or request_id is None or operation is None:
        return None
    return RequestPath(app.model_id, request_id, str(request_id), operation)


_OPERATIONS: Mapping[str, Operation] = {
    "": Operation.RESULT,
    "response": Operation.RESULT,
    "status": Operation.STATUS,
    "status/stream": Operation.STATUS_STREAM,
    "cancel": Operation.CANCEL,
}


def app_path(model_id: ModelId) -> str:
    """Return a model's path as callers write it."""
    owner, _, alias = model_id.partition("/")
    namespace, dot, rest = owner.partition(".")
    return f"{namespace}/{rest}/{alias}" if dot and namespace in NAMESPACES else model_id


def request_url(bases: Bases, model_id: ModelId, request_id: str) -> str:
    """Return a request's URL in the app-only form that both clients build: the result; status and cancel hang below."""
    return f"{bases.queue}/{app_path(model_id)}/requests/{request_id}"
