"""Specs made in bulk: of every fal.App below a folder, or of a list of a provider's endpoints. Pure.

It decides which files hold an app, what a row of a list may say, and how a provider's spec looks; what a person must
answer for stays empty and marked, as in `spec_template`. It reads no file. Called by `forestay model import`.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.errors import UsageError
from forestay.fleet.app_source import app_names
from forestay.fleet.spec_template import TAIL, Identity, identity_lines
from forestay.fleet.spec_yaml import read_yaml

_NEEDED = ("model", "url", "key_secret")
_OWN = ("team", "contact", "licence", "escalation", "intended_use")
_ROW_FIELDS = (*_NEEDED, "endpoints", "protocol", "pool", "description", *_OWN)
MOST_ROWS = 2_000
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """One spec to write: where (below the folder of the import), and what stands in it."""

    file: str
    model: str
    text: str


def apps_in(source: str) -> tuple[str, ...]:
    """Return the names of the fal.App classes of a file; none where it is no Python or holds none."""
    try:
        return app_names(source)
    except UsageError:
        return ()


def read_rows(text: str, file_name: str) -> list[dict[str, str]]:
    """Read a list of endpoints, CSV with a header or a YAML list of mappings; UsageError names row and field."""
    rows = _yaml_rows(text, file_name) if file_name.endswith((".yaml", ".yml")) else _csv_rows(text, file_name)
    if not rows or len(rows) > MOST_ROWS:
        raise UsageError(file_name, f"must hold 1 to {MOST_ROWS:,} rows; this has {len(rows):,}")
    for number, row in enumerate(rows, 1):
        for name in row.keys() - set(_ROW_FIELDS):
            raise UsageError(file_name, f"row {number}: {name!r} is no field; known are {', '.join(_ROW_FIELDS)}")
        missing = [name for name in _NEEDED if not row.get(name)]
        if missing:
            raise UsageError(file_name, f"row {number}: {missing[0]} is missing; every row names {', '.join(_NEEDED)}")
    twice = _twice([_SAFE.sub("-", row["model"]) for row in rows])
    if twice:
        raise UsageError(file_name, f"two rows are called {twice}; give one of them another `model`")
    return rows


def render_provider(row: Mapping[str, str], usual: Identity) -> Made:
    """Return the spec of one endpoint of a provider; what its row does not say of its owner `usual` does."""
    identity = dataclasses.replace(usual, **{name: row[name] for name in _OWN if row.get(name)})
    paths = [part for part in re.split(r"[\s;,]+", row.get("endpoints") or "/") if part]
    lines = [
        "# Made by `forestay model import`. Lines marked FILL are yours: only a person knows them.",
        "version: 0",
        *identity_lines(row["model"], row.get("description") or "", identity),
        "visibility: private  # shared: every key; public: listed to everyone",
        "host:",
        "  kind: provider",
        f"  url: {json.dumps(row['url'])}",
        f"  protocol: {json.dumps(row.get('protocol') or 'fal')}  # fal: its queue protocol; json: a plain POST",
        f"  key_secret: {json.dumps(row['key_secret'])}  # the name of a secret, never the key itself",
        "endpoints:",
        *(f"  - {{path: {json.dumps(path)}, kind: call, media_inputs: []}}" for path in paths),
        f"resources: {{pool: {json.dumps(row.get('pool') or 'cpu')}, devices: 0, memory_mb: 128}}",
        "limits: {max_multiplexing: 8, request_timeout_seconds: 600, startup_timeout_seconds: 60}",
        TAIL,
    ]
    return Made(f"{_SAFE.sub('-', row['model'])}.yaml", row["model"], "\n".join(lines) + "\n")


def _csv_rows(text: str, file_name: str) -> list[dict[str, str]]:
    try:
        read = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise UsageError(file_name, f"is no CSV that can be read: {error}; write a header and a row a line") from None
    for number, row in enumerate(read, 1):
        if None in row or None in row.values():
            raise UsageError(file_name, f"row {number}: has not as many values as the header has names")
    return [{name.strip(): value.strip() for name, value in row.items()} for row in read]


def _yaml_rows(text: str, file_name: str) -> list[dict[str, str]]:
    values, _ = read_yaml(text, file_name)
    rows = cast("Sequence[object]", values) if isinstance(values, list) else ()
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(file_name, "must hold a list of mappings such as `- {model: acme/x, url: https://..., ...}`")
    return [{str(name): str(value) for name, value in cast("dict[object, object]", row).items()} for row in rows]


def _twice(names: Sequence[str]) -> str:
    return next((name for number, name in enumerate(names) if name in names[:number]), "")
