"""The reference pages that are read off the code: every route of the admin API, every metric, every bench.

A route's body and query are found in the source of its handler and of the functions of its module that it hands the
request to, so nothing has to be said twice. It decides the form of three pages. Called by `write_reference`.
"""

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
from bench.__main__ import NAMES

from forestay.fleet.roles import PERMISSIONS, Permission, Role
from forestay.gateway import admin
from forestay.telemetry.metrics import table

ADMIN_INTRODUCTION: Final = """# Admin API

For whoever writes a tool of their own; the command line is made of these calls. As a person who has
[signed in](../howto/people.md), or with an ADMIN key (`Authorization: Key id:secret`), below `/admin` on any gateway.
Bodies and answers are JSON, but for bundles (a tar), `made-by-us` (the file itself) and facts of
[another fleet](../howto/observe-a-fleet.md#from-your-own-code). A field without a mark must be there; one with `?` may
be left out. Unknown fields are refused. 401: not proven; 403: the role lacks the permission; 404: not there;
409: something stands against it; 422: the field that is wrong, and the mend. This page is generated from
`src/forestay/gateway/` by `make docs`.

## Permissions

"""
METRICS_INTRODUCTION: Final = """# Metrics

For whoever builds dashboards and alerts of their own. Each process serves those that it counts, in the Prometheus text
format, on its metrics port ([where that is](../howto/send-telemetry-elsewhere.md#metrics)). No label comes from a
prompt, a key or a request id. A metric that has as many label sets as it may have counts the rest under `other`.
`forestay observe export --to grafana` makes a dashboard of all of them. This page is generated from
`src/forestay/telemetry/metrics.py` by `make docs`.
"""
BENCH_INTRODUCTION: Final = """# Benches

For whoever wants the numbers of these pages on their own machine: `make bench ARGS=NAME`, or `python -m bench NAME`.
Each prints targets beside values and exits with 1 where one falls short; `--json FILE` writes the table too. Some take
minutes, and some start a whole platform. This page is generated from `bench/` by `make docs`.

| name | what it measures |
|---|---|
"""
BENCHES: Final = Path(__file__).resolve().parent.parent / "bench"
_BODY: Final = re.compile(r"act\.json\((\w+)\)|read_body\(\w+, \w+, (\w+)[,)]")
_QUERY: Final = re.compile(r"act\.(?:query|moment)\(\"(\w+)\"\)|act\.(limit)\(")
_HANDED_ON: Final = re.compile(r"\b(_\w+)\((?:act|request)\b")
LEAST_OF_A_SECTION: Final = 3  # routes; fewer stand under "others"


def render_admin() -> str:
    """Return the page of the admin API."""
    roles = [role.value for role in Role]
    parts = [ADMIN_INTRODUCTION, f"| permission | {' | '.join(roles)} |\n|{'---|' * (len(roles) + 1)}\n"]
    for permission in Permission:
        held = ["yes" if permission in PERMISSIONS[role] else "" for role in Role]
        parts.append(f"| `{permission}` | {' | '.join(held)} |\n")
    sections: dict[str, list[str]] = {}
    for method, path, permission, handler in admin.routes_of_the_reference():
        asks = "nothing" if permission is None else f"`{permission}`"
        cells = (f"`{method} /admin{path}`", asks, said_of(handler), ", ".join(queries_of(handler)), body_of(handler))
        sections.setdefault(path.split("/")[1], []).append(f"| {' | '.join(cells)} |\n")
    small = [row for rows in sections.values() if len(rows) < LEAST_OF_A_SECTION for row in rows]
    large = {name: rows for name, rows in sections.items() if len(rows) >= LEAST_OF_A_SECTION}
    for name, rows in {**large, "others": small}.items():
        parts += [f"\n## {name}\n\n| call | asks for | what it does | query | body |\n|---|---|---|---|---|\n", *rows]
    return "".join(parts)


def said_of(handler: Callable[..., Any]) -> str:
    """Return what a handler says of itself, fit for one cell."""
    return " ".join((handler.__doc__ or "").split()).replace("|", "\\|")


def queries_of(handler: Callable[..., Any]) -> list[str]:
    """Return the names of the query that a handler reads."""
    found = (match[1] or match[2] for source in sources_of(handler) for match in _QUERY.finditer(source))
    return [f"`{name}`" for name in dict.fromkeys(found)]


def body_of(handler: Callable[..., Any]) -> str:
    """Return the fields of the JSON that a handler reads, in their order; those with `?` have a default."""
    module = module_of(handler)
    for source in sources_of(handler):
        for match in _BODY.finditer(source):
            kind: Any = getattr(module, match[1] or match[2])
            return ", ".join(f"`{name}`" for name in fields_of(kind))
    return ""


def fields_of(kind: Any) -> Iterator[str]:
    """Yield the names of a structure's fields as they are sent."""
    if dataclasses.is_dataclass(kind):
        for plain in dataclasses.fields(kind):
            needed = plain.default is dataclasses.MISSING and plain.default_factory is dataclasses.MISSING
            yield plain.name if needed else f"{plain.name}?"
        return
    for field in msgspec.structs.fields(kind):
        yield field.encode_name if field.required else f"{field.encode_name}?"


def sources_of(handler: Callable[..., Any]) -> Iterator[str]:
    """Yield the source of a handler and of what it hands the request to in its own module."""
    module, waiting, seen = module_of(handler), [handler], set[str]()
    while waiting:
        source = inspect.getsource(waiting.pop(0))
        yield source
        for name in _HANDED_ON.findall(source):
            if name not in seen and inspect.isfunction(getattr(module, name, None)):
                seen.add(name)
                waiting.append(getattr(module, name))


def module_of(handler: Callable[..., Any]) -> ModuleType:
    """Return the module in which a handler stands."""
    return sys.modules[handler.__module__]


def render_metrics() -> str:
    """Return the page of metrics, in the order of their names."""
    parts = [METRICS_INTRODUCTION, "\n| metric | kind | labels | what it is |\n|---|---|---|---|\n"]
    for metric in sorted(table(), key=lambda item: item.name):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        doc = " ".join(metric.doc.split()).replace("|", "\\|")
        parts.append(f"| `{metric.name}` | {metric.kind} | {labels} | {doc} |\n")
    return "".join(parts)


def render_benches() -> str:
    """Return the page of benches: the first sentence of what each says of itself."""
    parts = [BENCH_INTRODUCTION]
    for name in NAMES:
        told = ast.get_docstring(ast.parse((BENCHES / f"{name}.py").read_text(encoding="utf-8"))) or ""
        first = " ".join(told.partition("\n\n")[0].split()).removeprefix(f"`{name}`: ").replace("|", "\\|")
        parts.append(f"| `{name}` | {first} |\n")
    return "".join(parts)
