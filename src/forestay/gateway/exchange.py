"""What is known of one call while it is answered: its id, its route, who calls, and what its log line will say.

Filled step by step by the pipeline in `asgi`; found by route handlers through `of(scope)`. Decides nothing.
"""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from typing import cast

from starlette.types import ASGIApp, Scope

from forestay.fleet.model import Revision
from forestay.gateway.routing import Bases, Surface
from forestay.values import hot_value

SCOPE_KEY = "forestay.exchange"


@hot_value
class Said:
    """What a call of a model asked for; kept until its note is written, then forgotten."""

    revision: Revision
    endpoint: str
    body: bytes
    predicted_seconds: float


@dataclasses.dataclass(slots=True)
class Exchange:
    """One call. `request_id` is what `x-fal-request-id` will say: the stored request's id where there is one."""

    app: ASGIApp  # the whole gateway, for routes that dispatch to it again (the JS proxy)
    request_id: str  # empty until one is known; the answer gets a fresh one then
    started: float  # monotonic seconds
    surface: Surface
    path: str  # without our prefix
    headers: dict[bytes, bytes]  # lower-case names; of a repeated one the last
    header_bytes: int
    bases: Bases
    call_id: uuid.UUID | None = None  # the same id unwritten, where a call of a model has got one
    route: str = "unmatched"  # one of few names: a metric's label
    model_id: str = ""
    tenant_id: str = ""
    key_id: str = ""
    status_code: int = 0
    sent_bytes: int = 0
    quiet: bool = False  # polls: counted, not logged
    held_seconds: float = 0.0  # how long a poll may have been held because there was no news
    told: bool = False  # a stored answer was read: its status is the answer's own
    cause: str = ""  # of a refusal, as precisely as it is known
    said: Said | None = None
    risk: float = 0.0  # the highest score that the guard gave the input
    limit_headers: tuple[tuple[bytes, bytes], ...] = ()  # what a limited caller is told beside its answer
    notices: tuple[tuple[bytes, bytes], ...] = ()  # headers that say what the platform changed
    counted_as: str = ""  # what an accepted call counts as against its caller; empty: as accepted
    files: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])  # for the fact of a direct call
    on_first_byte: Callable[[], None] | None = None  # told when the first piece of a stream is there
    fields: dict[str, object] = dataclasses.field(default_factory=dict[str, object])  # more for the log line


def of(scope: Scope) -> Exchange:
    """Return the call that `scope` belongs to."""
    return cast("Exchange", scope[SCOPE_KEY])
