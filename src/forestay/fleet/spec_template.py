"""A model spec made from the source of a `fal.App`: what can be read is filled in, the rest is left for a person. Pure.

It reads the file without running it: the class, its endpoints, its host settings and input fields that look like media.
What it cannot see (a value that is computed) is left at the platform's default. It decides no value that a person must
answer for: who owns the model, what it is licensed under, what it is for, where help is found; those stay empty,
marked FILL, and `forestay model check` asks for them. The rest are defaults that a readiness review accepts. Called by
`forestay model init` and `onboard`.
"""

import ast
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import cast

from forestay.errors import UsageError

_MEDIA = re.compile(r"(^|_)(image|video|audio|mask|picture|file)s?(_url|_urls)$|^(url|urls)$")
_KINDS = (("image", "image"), ("mask", "image"), ("picture", "image"), ("video", "video"), ("audio", "audio"))
_NUMBERS = {  # fal's host setting -> section and field of the spec
    "max_multiplexing": ("limits", "max_multiplexing"),
    "request_timeout": ("limits", "request_timeout_seconds"),
    "request_start_timeout": ("limits", "request_start_timeout_seconds"),
    "startup_timeout": ("limits", "startup_timeout_seconds"),
    "termination_grace_period_seconds": ("limits", "termination_grace_seconds"),
    "num_gpus": ("resources", "devices"),
}
_USUAL_LIMITS: Mapping[str, float] = {
    "max_multiplexing": 1,
    "request_timeout_seconds": 600,
    "startup_timeout_seconds": 600,
    "termination_grace_seconds": 5,
}
_MEMORY_MB = {"cpu": 2048, "gpu": 16_384}  # of the host, for one replica
_FETCHES = re.compile(
    r"\b(from_pretrained|hf_hub_download|snapshot_download|download_file|download_model_weights|clone_repository"
    r"|urlopen|urlretrieve|requests\.get|httpx\.get)\b"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Outline:
    """What the source of an app says of it."""

    class_name: str
    description: str
    endpoints: tuple[tuple[str, str, tuple[str, ...]], ...]  # path, kind, media inputs
    settings: Mapping[str, object]
    fetches: str = ""  # the first call by which its source seems to fetch something over the network


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What a person answers for; empty where they have not said."""

    model: str = ""
    team: str = ""
    contact: str = ""
    licence: str = ""
    escalation: str = ""
    intended_use: str = ""


def app_names(source: str) -> tuple[str, ...]:
    """Return the names of the `fal.App` classes of a source; UsageError when it is no Python."""
    return tuple(node.name for node in _apps(_classes(_parsed(source, "the file"))))


def _parsed(source: str, file_name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UsageError(file_name, f"is no Python that can be read: {error}") from None


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def _apps(classes: Sequence[ast.ClassDef]) -> list[ast.ClassDef]:
    return [node for node in classes if any(_last_name(base) == "App" for base in node.bases)]


def read_app(source: str, file_name: str, wanted: str = "") -> Outline:
    """Read an app's source; raises UsageError when it holds no `fal.App`, or several and none is named."""
    tree = _parsed(source, file_name)
    classes = _classes(tree)
    apps = _apps(classes)
    named = [node for node in apps if not wanted or node.name == wanted]
    if not named:
        raise UsageError(file_name, f"holds no class {wanted or 'that derives from fal.App'}; name the file that does")
    if len(named) > 1:
        names = ", ".join(node.name for node in named)
        raise UsageError(file_name, f"holds several apps ({names}); name one as {file_name}::{named[0].name}")
    app = named[0]
    fields = {node.name: _field_names(node) for node in classes}
    summary = (ast.get_docstring(app) or ast.get_docstring(tree) or "").split("\n")[0].strip()
    endpoints = tuple(_endpoints(app, fields))
    if not endpoints:
        raise UsageError(file_name, f"{app.name} has no method under @fal.endpoint or @fal.realtime")
    fetching = _FETCHES.search(source)
    return Outline(app.name, summary, endpoints, _settings(app), fetching[0] if fetching else "")


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _field_names(node: ast.ClassDef) -> tuple[str, ...]:
    return tuple(
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    )


def _endpoints(app: ast.ClassDef, fields: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for method in app.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in method.decorator_list:
            verb = _last_name(decorator.func) if isinstance(decorator, ast.Call) else ""
            if verb in {"endpoint", "realtime"} and isinstance(decorator, ast.Call):
                path = _literal(decorator.args[0]) if decorator.args else "/"
                streams = method.returns is not None and "StreamingResponse" in ast.unparse(method.returns)
                kind = "realtime" if verb == "realtime" else "stream" if streams else "call"
                media = tuple(dict.fromkeys(name for name in _inputs(method, fields) if _MEDIA.search(name)))
                yield (path if isinstance(path, str) and path.startswith("/") else "/"), kind, media


def _inputs(method: ast.FunctionDef | ast.AsyncFunctionDef, fields: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for argument in method.args.args[1:]:
        words = {_last_name(node) for node in ast.walk(argument.annotation)} if argument.annotation else set[str]()
        known = [name for word in words for name in fields.get(word, ())]
        yield from known or [argument.arg]


def _settings(app: ast.ClassDef) -> dict[str, object]:
    """Return the host settings that stand in the source as plain values: class keywords and attributes."""
    found: dict[str, object] = {}
    for keyword in app.keywords:
        if keyword.arg:
            found[keyword.arg] = _literal(keyword.value)
    for node in app.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _literal(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = _literal(node.value)
    return {name: value for name, value in found.items() if value is not None}


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


# The file -----------------------------------------------------------------------------------------------------------
FILL = "FILL"  # marks what only a person knows
_HEAD = """\
# Made from {app} by `forestay model init`. Lines marked FILL are yours: only a person knows them. Every other
# line is a default that a readiness review accepts; `forestay model check` says what is left, line by line."""
TAIL = """\
safety: {policy: standard}  # what judges every input and output; unguarded: nothing
rollout: {strategy: canary, when_inconclusive: hold}  # how a further revision gets its traffic
quality: {mode: enforce, retries: 1}  # a broken output is no success, and is tried again elsewhere
slos:  # what is promised of it over 30 days
  - {indicator: availability, objective: 99}
  - {indicator: validity, objective: 98, page: false}"""


def render_spec(outline: Outline, file_name: str, identity: Identity) -> str:
    """Return the YAML of a spec beside the app's file: whole but for the lines marked FILL."""
    alias = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", outline.class_name).lower()
    gpus = outline.settings.get("num_gpus")
    pool = "gpu" if isinstance(gpus, int) and gpus > 0 else "cpu"
    app = PurePath(file_name).name
    hint = f"its source says {outline.fetches}: full" if outline.fetches else "loopback, or full"
    lines = [
        _HEAD.format(app=app),
        "version: 0",
        *identity_lines(identity.model or f"my-team/{alias}", outline.description, identity),
        "visibility: private  # shared: every key; public: listed to everyone",
        "host:",
        "  kind: fal_app",
        f"  app: {_text(f'{app}::{outline.class_name}')}",
        f"  requirements: {_list_of(outline.settings.get('requirements'))}",
        f"  secrets: {_list_of(outline.settings.get('secrets'))}",
        f"  network: none  # {hint}, where it must fetch something itself",
        "endpoints:",
        *(_endpoint(path, kind, media) for path, kind, media in outline.endpoints),
        f"resources: {{pool: {pool}, devices: {gpus if isinstance(gpus, int) else 1}, memory_mb: {_MEMORY_MB[pool]}}}",
        f"limits: {{{', '.join(_limits(outline.settings))}}}",
        TAIL,
    ]
    return "\n".join(lines) + "\n"


def identity_lines(model: str, description: str, identity: Identity) -> list[str]:
    """Return the lines of what a person answers for; what nobody has said is empty and marked."""
    return [
        f"model: {_text(model)}  # what callers address, owner/alias",
        _filled("description", description, "what it makes, in a sentence"),
        "owner:",
        _filled("  team", identity.team, "who owns it"),
        _filled("  contact", identity.contact, "where that team is reached"),
        _filled("  escalation", identity.escalation, "who is called when the team does not answer"),
        _filled("licence", identity.licence, "SPDX identifier, of the code and of the weights"),
        _filled("intended_use", identity.intended_use, "who is to use it, and for what"),
        "risks: []  # what may go wrong with it, one line each",
    ]


def _filled(field: str, value: str, meaning: str) -> str:
    return f"{field}: {_text(value)}" if value else f'{field}: ""  # {FILL}: {meaning}'


def _endpoint(path: str, kind: str, media: Sequence[str]) -> str:
    named = ", ".join(f"{{field: {name}, kind: {_kind(name)}}}" for name in media)
    return f"  - {{path: {_text(path)}, kind: {kind}, media_inputs: [{named}]}}"


def _kind(name: str) -> str:
    return next((kind for word, kind in _KINDS if word in name), "any")


def _limits(settings: Mapping[str, object]) -> list[str]:
    given = dict(_USUAL_LIMITS)
    for name, (section, field) in _NUMBERS.items():
        value = settings.get(name)
        if section == "limits" and isinstance(value, int | float) and not isinstance(value, bool):
            given[field] = value
    return [f"{field}: {value}" for field, value in given.items()]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list_of(value: object) -> str:
    items = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    return json.dumps([item for item in items if isinstance(item, str)], ensure_ascii=False)
