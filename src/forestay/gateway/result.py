"""The stored answer, replayed: the model's own status, headers and body, with media URLs the caller can reach.

Decides which headers are the model's and which belong to a connection. Called by `queue_routes` and the direct lane.
"""

import functools
from collections.abc import Iterable

from forestay.gateway.responses import Header, Reply
from forestay.gateway.routing import Bases
from forestay.handshake import FILES_HEADER
from forestay.ids import ReplicaId
from forestay.media.urls import SCHEME, rewrite_media_urls
from forestay.queue.model import Answer

MAX_HEADER_BYTES = 16 * 1024  # fal's cap on the response headers of a model
_MARK = SCHEME.encode()

# Of the connection (RFC 9110, section 7.6.1), of the transfer, or instructions to the platform: never the caller's.
_WITHHELD = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        "server",
        "date",
        "set-cookie",
        "x-fal-request-id",
        "x-fal-served-from",
        "x-fal-stop-runner",
        "x-fal-runner-health-check",
        "x-forestay-auth",
        "x-forestay-busy",
        FILES_HEADER,
        # What would speak to a browser for our whole origin, or loosen what `access` says of this answer.
        "alt-svc",
        "clear-site-data",
        "content-security-policy",
        "content-security-policy-report-only",
        "nel",
        "refresh",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "strict-transport-security",
        "www-authenticate",
        "x-content-type-options",
    }
)
_RETRY = b"x-fal-needs-retry"
_REPEATED = 128  # characters of a value that is likely to come again


def replay(answer: Answer, bases: Bases, replica_id: ReplicaId | None) -> Reply:
    """Return the answer as its caller reads it; `replica_id` is who gave it."""
    headers = (*caller_headers(answer.headers.items(), answer.status_code), *served_from(replica_id))
    return Reply(answer.status_code, with_media_urls(answer.body, bases), headers)


def served_from(replica_id: ReplicaId | None) -> tuple[Header, ...]:
    """Return the header that names the replica (contract, section 1.5), none where no replica answered."""
    return () if replica_id is None else ((b"x-fal-served-from", replica_id.encode()),)


def with_media_urls(body: bytes, bases: Bases) -> bytes:
    """Write stored media names as URLs under the caller's base."""
    return rewrite_media_urls(body, bases.media) if _MARK in body else body


def caller_headers(headers: Iterable[tuple[str, str]], status_code: int) -> tuple[Header, ...]:
    """Return the model's headers for the caller, at most 16 KB; the retry hint only where it means something."""
    kept: list[Header] = []
    size = 0
    for name, value in headers:
        header = _known_header(name, value) if len(value) <= _REPEATED else _caller_header(name, value)
        if header is None:
            continue
        if header[0] == _RETRY and not (status_code >= 500 or status_code == 429):
            continue
        size += len(header[0]) + len(header[1])
        if size > MAX_HEADER_BYTES:
            break
        kept.append(header)
    return tuple(kept)


def _caller_header(name: str, value: str) -> Header | None:
    """Return a header as a caller reads it, None for one that is not the caller's."""
    lower = name.lower()
    if lower in _WITHHELD or lower.startswith("access-control-"):
        return None
    return lower.encode("latin-1", "replace"), value.encode("latin-1", "replace")


_known_header = functools.lru_cache(maxsize=1024)(_caller_header)
