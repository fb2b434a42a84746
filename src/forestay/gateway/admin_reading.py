"""How admin routes read what they are sent: path, query and JSON, each fault with the field it is in.

It decides bounds of queries and nothing else. Called by the admin routes.
"""

import dataclasses
import datetime as dt
from typing import TypeVar

import msgspec
from starlette.requests import Request

from forestay.errors import ForestayError, UsageError
from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_who import Who
from forestay.gateway.incoming import pieces
from forestay.gateway.ports import GatewayPorts
from forestay.ids import RequestId, TenantId, parse_request_id

T = TypeVar("T")
MAX_TEXT = 500
_FIRST_YEAR, _LAST_YEAR = 1970, 2200  # spans are added to moments, and the calendar ends
MAX_JSON = 16 * 1024 * 1024  # a spec with the model's whole OpenAPI


class Problem(ForestayError):
    """An answer other than 404 and 422: its status, its sentence, and a word for the metric."""

    def __init__(self, status_code: int, message: str, cause: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.cause = cause


class NotThere(ForestayError):
    """What was asked for does not exist."""


@dataclasses.dataclass(frozen=True, slots=True)
class Act:
    """One request of someone who is proven and has the route's permission."""

    request: Request
    ports: GatewayPorts
    who: Who

    @property
    def actor(self) -> str:
        """Return who acts, as the audit log names them."""
        return self.who.actor

    async def json(self, kind: type[T]) -> T:
        """Read the body in the given shape."""
        return await read_body(self.request, self.ports, kind)

    async def tenant(self, named: str) -> TenantId:
        """Return the tenant for whom something is made: the one named, the key's own, or the only one that there is."""
        tenant_id = plain_text("tenant_id", named) or self.who.tenant_id
        if tenant_id:
            return TenantId(tenant_id)
        tenants = await self.ports.key_store.tenants()
        if len(tenants) != 1:
            raise UsageError("tenant_id", "name it: a person has no tenant, and there are several to choose from")
        return tenants[0].tenant_id

    def path(self, name: str) -> str:
        """Return a part of the path; what no name can be names nothing that exists."""
        text = str(self.request.path_params[name])
        if len(text) > MAX_TEXT or "\x00" in text:
            raise NotThere(f"nothing is called {text[:60]!r}")
        return text

    def request_id(self) -> RequestId:
        """Return the request id in the path; what is none names nothing that exists."""
        text = self.path("request_id")
        found = parse_request_id(text)
        if found is None:
            raise NotThere(f"no request {text[:60]!r}")
        return found

    def query(self, name: str) -> str | None:
        """Return a value of the query, None when absent or empty."""
        text = self.request.query_params.get(name) or None
        if text is not None and (len(text) > MAX_TEXT or "\x00" in text):
            raise UsageError(name, f"is longer than {MAX_TEXT} characters or holds a NUL")
        return text

    def limit(self, default: int, most: int) -> int:
        """Return the `limit` of the query."""
        text = self.query("limit")
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise UsageError("limit", f"must be a number from 1 to {most}")
        return int(text)

    def moment(self, name: str) -> dt.datetime | None:
        """Return a time of the query."""
        text = self.query(name)
        if text is None:
            return None
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(name, "must be a time such as 2030-01-31T12:00:00Z") from None
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise UsageError(name, f"must lie between the years {_FIRST_YEAR} and {_LAST_YEAR}")
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)

    async def record(self, action: str, subject: str, detail: dict[str, object], reason: str) -> None:
        """Leave an audit row for an act that is no fleet action."""
        entry = AuditEntry(self.ports.clock.now(), self.actor, action, subject, detail, reason)
        await self.ports.fleet.record(entry)


async def read_body(request: Request, ports: GatewayPorts, kind: type[T], most: int = MAX_JSON) -> T:
    """Read a request's body in the given shape; raises Problem when it is too large, UsageError when it is wrong."""
    body = bytearray()
    async for piece in pieces(request, ports.settings.gateway.body_timeout_seconds):
        body += piece
        if len(body) > most:
            raise Problem(413, f"the body is larger than {most} bytes", "too_large")
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("body", str(error)) from None


def plain_text(field: str, text: str, most: int = MAX_TEXT, *, empty: bool = True) -> str:
    """Check a text from outside: its length, and that it holds no control characters."""
    if len(text) > most or (not empty and not text.strip()) or any(ord(letter) < 32 for letter in text):
        least = "" if empty else "1 to "
        raise UsageError(field, f"must be one line of {least or 'at most '}{most} characters")
    return text
