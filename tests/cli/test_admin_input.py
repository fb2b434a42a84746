"""The admin API never breaks: what no table can keep, no calendar has or no name is, is refused in words."""

import datetime as dt
import enum
import inspect
import itertools
import json
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import PEPPER, WATERMARK_KEY, Platform
from tests.cli.test_commands import call

from forestay.gateway import admin

NAMES = ("%00", "x" * 600, "%F0%9F%92%A5", "-1", "9" * 20, "%0A", "%1B%5B31m", "%ED%A0%80", "%FF", "1")
TIMES = (
    "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59-23:59",
    "1900-01-01T00:00:00Z",
    "yesterday",
    "%00",
    "2026-11-26",
)
NUMBERS = ("-1", "0", "9" * 20, "1e308", "nan", "%00")
_TEXTS = ("", "x", "a\x00b", "\x1b[31m", "\U0001f4a5", "x" * 5_000, "a/b", "\u202e")
_PLAIN: dict[object, tuple[object, ...]] = {
    str: _TEXTS,
    int: (0, -1, 1, 2**31, 2**63, 10**30),
    float: (0, -1, 1.5, 1e308),
    bool: (True,),
    types.NoneType: (None,),
    dt.datetime: ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-26T00:00:00Z"),
}


IMPOSSIBLE: tuple[tuple[str, str, object, int], ...] = (
    ("GET", "/alerts/%00", None, 404),
    ("POST", "/alerts/%00/ack", {"reason": "x"}, 404),
    ("GET", "/abuse/standings/%00", None, 404),
    ("GET", "/safety/review/%00/content", None, 404),
    ("POST", "/safety/policies/%00/rollback", {"reason": "x"}, 404),
    ("GET", "/safety/banks/%00/entries", None, 404),
    ("POST", "/safety/policies/standard/rollback", {"reason": "x", "version": 2**31}, 422),
    ("POST", "/abuse/lift", {"subject": "a\x00b", "reason": "x", "pardon_seconds": 0}, 422),
    ("POST", "/abuse/appeals", {"standing_id": "a\x00b", "words": "x"}, 422),
    ("GET", "/safety/audits?since=9999-12-31T23:59:59-23:59", None, 422),
    ("GET", "/safety/review/stats?since=0001-01-01T00:00:00%2B23:59", None, 422),
    ("GET", "/observe/v1/summary?until=0001-01-01", None, 422),
)


@pytest.mark.threat("API8:2023")
async def test_what_cannot_be_is_refused_in_words(platform: Platform) -> None:
    """A NUL in a name names nothing; a number or a moment beyond every bound is the caller's fault, never ours."""
    for method, path, body, status in IMPOSSIBLE:
        answered, told = await call(platform, method, path, body=None if body is None else json.dumps(body).encode())
        assert (answered, bool(told["detail"])) == (status, True), (path, told)


@pytest.mark.slow  # five thousand calls
async def test_no_route_breaks_whatever_it_is_sent(platform: Platform) -> None:
    """Hostile names, queries and bodies of its own shape: never a 500, a refusal has words, no answer has a secret."""
    broken: list[tuple[str, str, bytes | None, int]] = []
    secrets = (platform.admin_key.partition(":")[2], platform.api_key.partition(":")[2], PEPPER, WATERMARK_KEY)
    for method, path, _, handler in admin.routes_of_the_reference():
        if path in {"/sign-out", "/password"} or not path.startswith("/"):
            continue  # they would end the session that asks
        for target, body in _calls(method, path, handler):
            status, told = await call(platform, method, target, body=body)
            if (status >= 500 and status != 503) or (status in {400, 422} and not told.get("detail")):
                broken.append((method, target[:100], body and body[:100], status))
            assert not [secret for secret in secrets if secret in json.dumps(told)], (method, target)
    assert not broken


def _calls(method: str, path: str, handler: Callable[..., object]) -> Iterator[tuple[str, bytes | None]]:
    """Yield targets and bodies for one route; the names of its query and the shape of its body, its source says."""
    source = inspect.getsource(handler)
    if method == "GET":
        for query in [*re.findall(r"act\.(?:query|moment)\(\"(\w+)\"", source), "limit", "since", "until"]:
            for value in (*TIMES, *NUMBERS, "x" * 501):
                yield f"{re.sub(r'{.*?}', '1', path)}?{query}={value}", None
    for name in NAMES if "{" in path else ():
        yield re.sub(r"{.*?}", name, path), None if method == "GET" else b'{"reason": "x"}'
    shape = re.search(r"act\.json\((\w+)\)", source)
    kind = inspect.unwrap(handler).__globals__.get(shape[1]) if shape else None
    for body in _bodies(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ():
        yield re.sub(r"{.*?}", "1", path), json.dumps(body).encode()
    if method != "GET":
        for raw in (b"", b"[]", b"null", b"{", b"\xff", b"1e999", b'{"a": ' * 2_000, b'{"reason":"\\ud800"}'):
            yield re.sub(r"{.*?}", "1", path), raw


def _bodies(kind: type) -> Iterator[dict[str, object]]:
    """Yield a body of the shape that could be right, and one for each hostile value of each field."""
    fields = {name: list(_values(hint)) for name, hint in typing.get_type_hints(kind, include_extras=True).items()}
    fair = {name: next((value for value in values if value), values[0]) for name, values in fields.items()}
    yield fair
    for name, values in fields.items():
        yield from ({**fair, name: value} for value in values)


def _values(hint: Any) -> Iterator[object]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        yield from _PLAIN[hint]
    elif origin is typing.Annotated:
        yield from _values(inner[0])
    elif origin in {typing.Union, types.UnionType}:
        yield from itertools.chain.from_iterable(_values(one) for one in inner)
    elif origin in {list, tuple, set, frozenset}:
        yield from ([], *([value] for value in itertools.islice(_values(inner[0]), 6)))
    elif origin is dict:
        yield from ({}, *({"a\x00": value} for value in itertools.islice(_values(inner[1]), 3)))
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield from (one.value for one in hint)
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield from itertools.islice(_bodies(hint), 8)
    else:
        yield from (None, "x", 1, [], {}, {"a": "b\x00"})
