"""What the source of a `fal.App` says of it, read without running it. Pure.

It finds the app, its endpoints (those that it inherits in the same file too), its host settings where they stand as
plain values, and which fields of its inputs hold files: by their names, and by the types of fal's toolkit. It decides
no field of a spec: `spec_template` does. What it cannot see, a value that is computed or a class of another file, it
leaves out or names. Called by `spec_template` and, for whole folders, by `spec_import`.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from forestay.errors import UsageError

_MEDIA = re.compile(r"(^|_)(image|video|audio|mask|picture|photo|frame|voice|file)s?(_url|_urls)$|^(url|urls)$")
_KINDS = (
    ("image", "image"),
    ("mask", "image"),
    ("picture", "image"),
    ("photo", "image"),
    ("frame", "image"),
    ("video", "video"),
    ("audio", "audio"),
    ("voice", "audio"),
)
_TYPES = {  # of fal.toolkit: each holds a URL, or an object with one
    **dict.fromkeys(("Image", "ImageInput", "ImageHttpsUrl", "ImageDataUri", "ImageField"), "image"),
    **dict.fromkeys(("Video", "VideoField"), "video"),
    **dict.fromkeys(("Audio", "AudioField"), "audio"),
    **dict.fromkeys(("File", "FileInput", "CompressedFile", "HttpsUrl", "DataUri", "FileField"), "any"),
}
_WEIGHTS = re.compile(r"lora|weights|embeddings", re.IGNORECASE)
_STREAMS = {"StreamingResponse", "EventSourceResponse"}
_FETCHES = re.compile(
    r"\b(from_pretrained|hf_hub_download|snapshot_download|download_file|download_model_weights|clone_repository"
    r"|urlopen|urlretrieve|requests\.get|httpx\.get)\b"
)
_PLAIN = re.compile(
    r"(str|int|float|bool|bytes|dict|list|tuple|set|Request|None|Any|Optional|Union|Literal|Annotated)$"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One path that callers address."""

    path: str
    kind: str  # call | stream | realtime
    media: tuple[tuple[str, str], ...] = ()  # field, kind of file
    unread: str = ""  # class of its input that is in another file


@dataclasses.dataclass(frozen=True, slots=True)
class Outline:
    """What the source of an app says of it."""

    class_name: str
    description: str
    endpoints: tuple[Endpoint, ...]
    settings: Mapping[str, object]
    fetches: str = ""  # the first call by which its source seems to fetch something over the network
    image: bool = False  # it names a container image of its own


def app_names(source: str) -> tuple[str, ...]:
    """Return the names of the `fal.App` classes of a source; UsageError when it is no Python."""
    module = _Module(_parsed(source, "the file"))
    return tuple(node.name for node in module.apps())


def read_app(source: str, file_name: str, wanted: str = "") -> Outline:
    """Read an app's source; raises UsageError when it holds no `fal.App`, or several and none is named."""
    tree = _parsed(source, file_name)
    module = _Module(tree)
    named = [node for node in module.apps() if not wanted or node.name == wanted]
    if not named:
        raise UsageError(file_name, _no_app(tree, wanted))
    if len(named) > 1:
        names = ", ".join(node.name for node in named)
        raise UsageError(file_name, f"holds several apps ({names}); name one as {file_name}::{named[-1].name}")
    app = named[0]
    summary = (ast.get_docstring(app) or ast.get_docstring(tree) or "").split("\n")[0].strip()
    endpoints = tuple(module.endpoints(app))
    if not endpoints:
        raise UsageError(file_name, f"{app.name} has no method under @fal.endpoint or @fal.realtime")
    fetching = _FETCHES.search(source)
    attributes = module.attributes(app)
    settings = {name: read for name, node in attributes.items() if (read := module.literal(node)) is not None}
    return Outline(app.name, summary, endpoints, settings, fetching[0] if fetching else "", image="image" in attributes)


def _parsed(source: str, file_name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UsageError(file_name, f"is no Python that can be read: {error}") from None


def _no_app(tree: ast.Module, wanted: str) -> str:
    for node in ast.walk(tree):
        verbs = [_name_of(item) for item in getattr(node, "decorator_list", ())]
        if not wanted and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "function" in verbs:
            return f"{node.name} is a fal.function, and models are classes: make it a method of a fal.App"
    return f"holds no class {wanted or 'that derives from fal.App'}; name the file that does"


class _Module:
    """The classes of one file, and the constants beside them."""

    def __init__(self, tree: ast.Module) -> None:
        self._classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        self._constants = dict(_assigned(tree.body))

    def apps(self) -> list[ast.ClassDef]:
        """Return the apps; of several, those that can be called."""
        found = [node for node in self._classes.values() if any(_name_of(b) == "App" for b in self._bases(node))]
        return [node for node in found if any(self.endpoints(node))] or found

    def _bases(self, node: ast.ClassDef) -> list[ast.expr]:
        return [base for item in self._lineage(node) for base in item.bases]

    def _lineage(self, node: ast.ClassDef, seen: frozenset[str] = frozenset()) -> list[ast.ClassDef]:
        """Return a class and what it derives from in this file, the oldest first."""
        if node.name in seen:
            return []
        seen |= {node.name}
        older = [self._classes[name] for base in node.bases if (name := _name_of(base)) in self._classes]
        return [*(item for base in older for item in self._lineage(base, seen)), node]

    def literal(self, node: ast.expr) -> object:
        """Return the plain value that an expression is, or that the constant which it names has; else None."""
        if isinstance(node, ast.Name):
            node = self._constants.get(node.id, node)
        try:
            return cast("object", ast.literal_eval(node))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None

    def attributes(self, app: ast.ClassDef) -> dict[str, ast.expr]:
        """Return the host settings of an app: class keywords and attributes, those of its bases first."""
        found: dict[str, ast.expr] = {}
        for node in self._lineage(app):
            found |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            found |= dict(_assigned(node.body))
            if node is not app:
                found.pop("name", None)  # the name of an app is its own
        return found

    def endpoints(self, app: ast.ClassDef) -> Iterator[Endpoint]:
        """Yield what callers address: neither a health check nor `/cancel`, which the platform calls itself."""
        methods = {
            item.name: item
            for node in self._lineage(app)
            for item in node.body
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for method in methods.values():
            for decorator in method.decorator_list:
                verb = _name_of(decorator.func) if isinstance(decorator, ast.Call) else ""
                if isinstance(decorator, ast.Call) and verb in {"endpoint", "realtime"}:
                    words = {keyword.arg: keyword.value for keyword in decorator.keywords}
                    path = self._path(decorator, words)
                    if "health_check" not in words and not path.endswith("/cancel"):
                        yield self._endpoint(path, verb, words, method)

    def _path(self, decorator: ast.Call, words: Mapping[str | None, ast.expr]) -> str:
        given = decorator.args[0] if decorator.args else words.get("path")
        path = None if given is None else self.literal(given)
        return path if isinstance(path, str) and path.startswith("/") else "/"

    def _endpoint(
        self,
        path: str,
        verb: str,
        words: Mapping[str | None, ast.expr],
        method: ast.FunctionDef | ast.AsyncFunctionDef,
    ) -> Endpoint:
        socket = verb == "realtime" or ("is_websocket" in words and self.literal(words["is_websocket"]) is True)
        kind = "realtime" if socket else "stream" if _says_stream(method) else "call"
        media: dict[str, str] = {}
        unread = ""
        for argument in method.args.args[1:]:
            names = _names_in(argument.annotation)
            inputs = [self._classes[name] for name in names if name in self._classes]
            for owner in inputs:
                media |= {name: held for name, node in self._fields(owner) if (held := self._file_in(name, node))}
            if not inputs:
                unread = unread or next((name for name in names if not _PLAIN.match(name) and name not in _TYPES), "")
                if held := _named_file(argument.arg):
                    media[argument.arg] = held
        return Endpoint(path, kind, tuple(media.items()), unread)

    def _fields(self, node: ast.ClassDef) -> Iterator[tuple[str, ast.AnnAssign]]:
        for owner in self._lineage(node):
            for item in owner.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    yield item.target.id, item

    def _file_in(self, name: str, field: ast.AnnAssign) -> str:
        """Return the kind of file that a field of an input holds; empty where it seems to hold none."""
        types = _names_in(field.annotation)
        held = {item for owner in types if owner in self._classes for item, _ in self._fields(self._classes[owner])}
        if _WEIGHTS.search(name) and held & {"path", "url"}:
            return "weights"
        kinds = [_TYPES[word] for word in (*types, *_called(field.value)) if word in _TYPES]
        by_name = _named_file(name) or (_kind(name) if kinds or "url" in held else "")
        return by_name if not kinds else by_name if kinds[0] == "any" and by_name else kinds[0]


def _assigned(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _name_of(node: ast.AST | None) -> str:
    if isinstance(node, ast.Call):
        return _name_of(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _names_in(annotation: ast.expr | None) -> list[str]:
    """Return the names in an annotation, in their order; one that is a text is read too."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return []
    if annotation is None:
        return []
    return [name for node in ast.walk(annotation) if (name := _name_of(node)) and not isinstance(node, ast.Call)]


def _called(value: ast.expr | None) -> list[str]:
    return [_name_of(node) for node in ast.walk(value) if isinstance(node, ast.Call)] if value is not None else []


def _says_stream(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether it answers with a stream: by its annotation, or by a line that returns one."""
    if _STREAMS & set(_names_in(method.returns)):
        return True
    returned = (node.value for node in ast.walk(method) if isinstance(node, ast.Return) and node.value is not None)
    return any(_STREAMS & set(_called(value)) for value in returned)


def _named_file(name: str) -> str:
    return _kind(name) if _MEDIA.search(name) else ""


def _kind(name: str) -> str:
    return next((kind for word, kind in _KINDS if word in name), "any")
