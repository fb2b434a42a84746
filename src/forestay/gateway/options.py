"""What a caller chose beside the input: every request header and query field of the contract (section 1.5), parsed.

A value that cannot be honoured is a precise 400, except where fal itself ignores it (`X-Fal-Retry-Config`). Who may
say what is decided here too: retry settings are the owner's, and headers that a model obeys as the platform's own word
pass only with the privilege that names them, else they are taken out without a word. Pure. Called by submit and the
direct lane.
"""

import datetime as dt
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from forestay.fleet.grants import Privilege
from forestay.fleet.spec import HostKind, ModelSpec
from forestay.gateway.exchange import Exchange
from forestay.gateway.responses import Reply, bad_request
from forestay.ids import KeyId, ModelId
from forestay.media.targets import check_target
from forestay.media.upload_policy import parse_upload_policy
from forestay.queue.model import Options, Priority
from forestay.values import hot_value

MIN_SECONDS = 0.1  # fal: time-outs must be greater than this
MAX_SECONDS = 30 * 86400.0
MAX_LIFETIME_SECONDS = 100 * 365 * 86400
MAX_HINT = 256
MAX_IDEMPOTENCY_KEY = 255
MAX_FORWARDED = 32
MAX_TAGS = 10  # fal's own bound
_TAG = re.compile(r"([A-Za-z0-9_.:/-]{1,64})=([!-+\--~](?:[ -+\--~]{0,126}[!-+\--~])?|)")  # printable, without a comma
_MAX_QUEUE_LENGTH = 1_000_000_000
_TRUE = frozenset({"1", "true", "yes"})
_CONDITIONS = frozenset({"server_error", "timeout", "connection_error"})
_FORWARDED = frozenset({b"x-fal-object-lifecycle-preference", b"x-fal-runner-hint", b"accept"})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# Headers towards a model that speak for the platform. What stands in neither table never reaches a model: among them
# x-fal-request-id, x-fal-endpoint and x-fal-caller-user-id, which the platform alone states.
_PRIVILEGED: Mapping[bytes, Privilege] = {
    b"x-app-fal-can-disable-filter": Privilege.DISABLE_FILTER,  # fal's entitlement to turn an app's filter off
    b"x-fal-cdn-token": Privilege.CONTROL_HEADERS,  # whose store the model writes to
}
_CONTROL_PREFIX = b"x-app-fal-"  # everything else of this name space (fallback): CONTROL_HEADERS
_POLICY = b"x-app-fal-upload-policy"  # the platform's own to obey: it needs no privilege and never reaches a model
_OPTIONS = frozenset({  # headers by which a caller chooses something, beside those that are passed on
    b"x-fal-queue-priority", b"x-fal-request-timeout", b"x-forestay-deadline", b"x-fal-runner-hint", b"x-fal-no-retry",
    b"x-fal-retry-config", b"x-fal-store-io", b"x-fal-object-lifecycle-preference", b"x-fal-tags", b"idempotency-key",
    _POLICY,
})  # fmt: skip
_FINGERPRINTED = (
    b"x-fal-queue-priority",
    b"x-fal-request-timeout",
    b"x-forestay-deadline",
    b"x-fal-runner-hint",
    b"x-fal-no-retry",
    b"x-fal-retry-config",
    b"x-fal-store-io",
    b"x-fal-object-lifecycle-preference",
    b"x-fal-tags",
    b"x-app-fal-upload-policy",
    b"x-app-fal-can-disable-filter",
)
_FINGERPRINTED_SET = frozenset(_FINGERPRINTED)


@hot_value
class Context:
    """What the meaning of an option depends on."""

    now: dt.datetime
    spec: ModelSpec
    is_owner: bool
    allow_private_webhooks: bool
    traceparent: str
    privileges: frozenset[Privilege] = frozenset()
    allow_private_buckets: bool = False


@hot_value
class Choices:
    """Everything parsed."""

    options: Options
    start_seconds: float | None  # the caller's own limit; None when it is the owner's default, or absent
    max_queue_length: int | None
    idempotency_key: str | None


class _Invalid(Exception):
    """Carries one precise sentence to `parse_choices`."""


def parse_choices(headers: Mapping[bytes, bytes], query_string: bytes, context: Context) -> Choices | Reply:
    """Parse all options; the first value that cannot be honoured is answered 400."""
    try:
        return _parse(headers, query_string, context)
    except _Invalid as error:
        return bad_request(str(error))


def fingerprint(
    key_id: KeyId, model_id: ModelId, endpoint: str, body: bytes, said: tuple[Mapping[bytes, bytes], bytes]
) -> bytes:
    """Return the digest by which a retried submit is recognised; `said` is headers and query string."""
    headers, query_string = said
    told = (key_id.encode(), model_id.encode(), endpoint.encode(), query_string, body)
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in told]))
    if not _FINGERPRINTED_SET.isdisjoint(headers):
        for name in _FINGERPRINTED:
            value = headers.get(name)
            if value is not None:
                digest.update(b"%b:%d:%b" % (name, len(value), value))
    return digest.digest()


def is_clean(value: bytes) -> bool:
    """Tell whether a header's value may be sent on: no control character but the tab (RFC 9110, section 5.5)."""
    return _CONTROL.search(value) is None


def privilege_of(name: bytes) -> Privilege | None:
    """Return the privilege without which this header (lower case) does not reach a model; None: it needs none."""
    known = _PRIVILEGED.get(name)
    return Privilege.CONTROL_HEADERS if known is None and name.startswith(_CONTROL_PREFIX) else known


def _forwarded(headers: Mapping[bytes, bytes], privileges: frozenset[Privilege]) -> dict[str, str]:
    """Return what the model may see of the caller's headers."""
    kept: dict[str, str] = {}
    if not privileges and _FORWARDED.isdisjoint(headers):
        return kept
    for name, value in headers.items():
        if name in _FORWARDED or (privileges and name != _POLICY and privilege_of(name) in privileges):
            if not is_clean(value):
                raise _Invalid(f"{_title(name)} holds control characters")
            kept[name.decode("latin-1")] = value.decode("latin-1")
            if len(kept) >= MAX_FORWARDED:
                break
    return kept


def query_fields(query_string: bytes) -> dict[str, str]:
    """Read a query string; of a repeated field the last, beyond 50 fields nothing."""
    if not query_string:
        return {}
    try:
        return dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        return {}


def _parse(headers: Mapping[bytes, bytes], query_string: bytes, context: Context) -> Choices:
    if not query_string and _OPTIONS.isdisjoint(headers):
        return Choices(_usual(headers, context), None, None, None)
    query = query_fields(query_string)
    start_seconds = _seconds(headers, b"x-fal-request-timeout")
    total_seconds = _seconds(headers, b"x-forestay-deadline")
    start_limit = start_seconds or context.spec.limits.request_start_timeout_seconds
    options = Options(
        priority=_priority(headers),
        start_deadline=_after(context.now, start_limit),
        total_deadline=_after(context.now, total_seconds),
        hint=_text(headers, b"x-fal-runner-hint", MAX_HINT),
        no_retry=headers.get(b"x-fal-no-retry", b"").decode("latin-1").strip().lower() in _TRUE,
        retry_config=_retry_config(headers) if context.is_owner else {},
        webhook_url=_webhook(query, allow_private=context.allow_private_webhooks),
        store_io=headers.get(b"x-fal-store-io", b"1").strip() != b"0",
        object_lifetime_seconds=_lifetime(headers),
        upload_policy=_upload_policy(headers, context),
        traceparent=context.traceparent,
        forward_headers=_forwarded(headers, context.privileges),
        tags=_tags(headers),
    )
    key = _text(headers, b"idempotency-key", MAX_IDEMPOTENCY_KEY)
    return Choices(options, start_seconds, _max_queue_length(query), key)


def _usual(headers: Mapping[bytes, bytes], context: Context) -> Options:
    """Return the options of a call that chooses nothing, as most do: what `_parse` makes of none of its headers."""
    return Options(
        start_deadline=_after(context.now, context.spec.limits.request_start_timeout_seconds),
        traceparent=context.traceparent,
        forward_headers=_forwarded(headers, context.privileges),
    )


def _seconds(headers: Mapping[bytes, bytes], name: bytes) -> float | None:
    raw = headers.get(name)
    if raw is None:
        return None
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not MIN_SECONDS < value <= MAX_SECONDS:
        raise _Invalid(f"{_title(name)} must be a number of seconds greater than {MIN_SECONDS} and at most 30 days")
    return value


def _after(now: dt.datetime, seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else now + dt.timedelta(seconds=seconds)


def _priority(headers: Mapping[bytes, bytes]) -> Priority:
    raw = headers.get(b"x-fal-queue-priority")
    if raw is None:
        return Priority.NORMAL
    try:
        return Priority(raw.decode("latin-1").strip().lower())
    except ValueError:
        raise _Invalid("X-Fal-Queue-Priority must be normal or low") from None


def _text(headers: Mapping[bytes, bytes], name: bytes, longest: int) -> str | None:
    raw = headers.get(name)
    if raw is None:
        return None
    text = raw.decode("latin-1").strip()
    if not 0 < len(text) <= longest or not text.isprintable() or not text.isascii():
        raise _Invalid(f"{_title(name)} must be 1 to {longest} printable ASCII characters")
    return text


def note_tags(exchange: Exchange, choices: Choices) -> None:
    """Put the caller's tags on the call's log line."""
    if choices.options.tags:
        exchange.fields["tags"] = dict(choices.options.tags)


def _tags(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    raw = headers.get(b"x-fal-tags")
    if raw is None:
        return {}
    try:
        return read_tags([part.strip() for part in raw.decode("latin-1").split(",") if part.strip()])
    except ValueError as error:
        raise _Invalid(f"X-Fal-Tags: {error}") from None


def read_tags(texts: Sequence[str]) -> dict[str, str]:
    """Read `key=value` texts; ValueError says which one is wrong and what is expected."""
    if len(texts) > MAX_TAGS:
        raise ValueError(f"{len(texts)} tags are more than {MAX_TAGS}")
    tags: dict[str, str] = {}
    for text in texts:
        match = _TAG.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text[:80]!r} is not key=value: a key of 1 to 64 letters, digits, or _ . : / -, and a value of at "
                f"most 128 printable ASCII characters without a comma"
            )
        if match[1] in tags:
            raise ValueError(f"{match[1]!r} is given twice")
        tags[match[1]] = match[2]
    return tags


def _retry_config(headers: Mapping[bytes, bytes]) -> dict[str, Mapping[str, int]]:
    """Read what parses; fal silently ignores the rest, and so do we."""
    said = headers.get(b"x-fal-retry-config")
    if said is None:
        return {}
    try:
        raw: object = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    kept: dict[str, Mapping[str, int]] = {}
    for condition, setting in (cast("dict[str, object]", raw) if isinstance(raw, dict) else {}).items():
        retries = cast("dict[str, object]", setting).get("retries") if isinstance(setting, dict) else None
        if condition in _CONDITIONS and isinstance(retries, int) and not isinstance(retries, bool):
            kept[condition] = {"retries": max(0, min(retries, 10))}
    return kept


def _lifetime(headers: Mapping[bytes, bytes]) -> int | None:
    raw = headers.get(b"x-fal-object-lifecycle-preference")
    if raw is None:
        return None
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Invalid("X-Fal-Object-Lifecycle-Preference must be a JSON object")
    said = cast("dict[str, object]", value)
    if not _is_open(said.get("initial_acl")):
        raise _Invalid(
            "initial_acl in X-Fal-Object-Lifecycle-Preference cannot be honoured: files are open to whoever holds "
            "their unguessable URL"
        )
    seconds = said.get("expiration_duration_seconds")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= MAX_LIFETIME_SECONDS:
        raise _Invalid(
            "expiration_duration_seconds in X-Fal-Object-Lifecycle-Preference must be a number of seconds from 1"
        )
    return int(seconds)


def _is_open(acl: object) -> bool:
    """Tell whether an access list says what holds here anyhow; any other is refused, as for uploads (`lifecycle`)."""
    if acl is None:
        return True
    said = cast("dict[str, object]", acl) if isinstance(acl, dict) else {"default": "unreadable"}
    return said.get("default") in {None, "allow"} and not said.get("rules")


def _webhook(query: Mapping[str, str], *, allow_private: bool) -> str | None:
    url = query.get("fal_webhook")
    if url is None:
        return None
    reason = check_target(url, allow_private)
    if reason is not None:
        raise _Invalid(f"fal_webhook cannot be called: {reason}")
    return url


def _upload_policy(headers: Mapping[bytes, bytes], context: Context) -> str | None:
    """Check that outputs can go where the caller wants them; a policy that cannot be honoured is never ignored."""
    raw = headers.get(_POLICY)
    if raw is None:
        return None
    if context.spec.host.kind is not HostKind.FAL_APP:
        raise _Invalid(f"{_title(_POLICY)} cannot be honoured: this model's files are not the platform's to store")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _Invalid(f"{_title(_POLICY)} is not UTF-8") from None
    policy = parse_upload_policy(text, allow_private=context.allow_private_buckets)
    if isinstance(policy, str):
        raise _Invalid(f"{_title(_POLICY)}: {policy}")
    return text


def _max_queue_length(query: Mapping[str, str]) -> int | None:
    raw = query.get("fal_max_queue_length")
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 10 and int(raw) <= _MAX_QUEUE_LENGTH):
        raise _Invalid("fal_max_queue_length must be a whole number, 0 or more")
    return int(raw)


def _title(name: bytes) -> str:
    return name.decode().title()
