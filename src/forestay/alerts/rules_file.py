"""The file of FORESTAY_ALERT_ROUTES as values: receivers, routes, inhibitions. Every fault with its line, field, mend.

Decides what a file may say. Addresses may stand in the file or, better, in a file of their own (`url_file`). Called by
the alert loop at start and when the file changes, and by `forestay alert check`.
"""

import pathlib
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import yaml

from forestay.alerts.receivers import Receiver, ReceiverKind, Routing
from forestay.alerts.rules import BROUGHT, MAX_MATCHERS, Inhibition, Matcher, Route, Rules, Step, read_matcher
from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.media.targets import read_target

VARIABLE = "FORESTAY_ALERT_ROUTES"
MAX_ROUTES = 100
MAX_RECEIVERS = 50
MAX_STEPS = 5
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_MOST_SECONDS = 30 * 86_400.0
Place = tuple[int | str, ...]


class _Receiver(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: ReceiverKind
    url: str = ""
    url_file: str = ""
    send_resolved: bool = True


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    after: str | int | float
    to: list[str]


class _Route(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    to: list[str]
    match: list[str] = []
    group_by: list[str] = msgspec.field(default_factory=lambda: ["owner"])
    group_wait: str | int | float = "10s"
    group_interval: str | int | float = "5m"
    page_wait: str | int | float = "0s"
    page_interval: str | int | float = "30s"
    repeat: str | int | float = "4h"
    escalate: list[_Step] = []


class _Inhibition(msgspec.Struct, forbid_unknown_fields=True):
    by: list[str]
    over: list[str]
    equal: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    receivers: list[_Receiver]
    routes: list[_Route]
    inhibit: list[_Inhibition] = []
    resolve_after: str | int | float = "1m"
    flap_window: str | int | float = "1h"
    flap_cap: str | int | float = "30m"


def read_routing(text: str, file_name: str, folder: pathlib.Path) -> Routing:
    """Read the file; SpecError (a UsageError) names every fault. `folder` is where relative `url_file`s begin."""
    value, node = read_yaml(text, file_name)
    try:
        file = msgspec.convert(value, _File)
    except msgspec.ValidationError as error:
        place = _place(str(error))
        raise SpecError(file_name, [f"{line_of(node, place)}: {error}"]) from None
    reader = _Reader(file, folder, node)
    routing = reader.read()
    if reader.faults:
        raise SpecError(file_name, reader.faults)
    return routing


def load_routing(path: str) -> Routing:
    """Read the file at `path`; an empty path gives no routes: alerts are kept and told to nobody."""
    if not path:
        return Routing()
    file = pathlib.Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(VARIABLE, f"{path} cannot be read: {said}; give a YAML file") from None
    return read_routing(text, file.name, file.parent)


def _place(message: str) -> Place:
    """Return where msgspec says that a fault is: `$.routes[0].name`."""
    found = re.search(r"`\$([^`]*)`", message)
    parts = re.findall(r"\.([A-Za-z_]+)|\[(\d+)\]", found[1]) if found else []
    return tuple(name or int(index) for name, index in parts)


class _Reader:
    """Reads a file of the right shape, and gathers what is wrong with it."""

    def __init__(self, file: _File, folder: pathlib.Path, node: yaml.Node | None) -> None:
        self._file = file
        self._folder = folder
        self._node = node
        self.faults: list[str] = []

    def read(self) -> Routing:
        """Return the routing; it counts only where no fault was found."""
        file = self._file
        self._twins("receivers", [item.name for item in file.receivers], MAX_RECEIVERS)
        self._twins("routes", [item.name for item in file.routes], MAX_ROUTES)
        receivers = tuple(self._receiver(index, item) for index, item in enumerate(file.receivers))
        routes = tuple(self._route(index, item) for index, item in enumerate(file.routes))
        if not routes or routes[-1].matchers:
            place = ("routes", len(routes) - 1) if routes else ("routes",)
            self._fault(place, "the last route must be without `match`, so that no alert is without one")
        inhibitions = tuple(self._inhibition(index, item) for index, item in enumerate(file.inhibit))
        rules = Rules(
            routes=routes,
            inhibitions=(*BROUGHT, *inhibitions),
            quiet_receivers=frozenset(item.name for item in receivers if not item.ends),
            resolve_after_seconds=self._seconds(("resolve_after",), file.resolve_after, least=1.0),
            flap_window_seconds=self._seconds(("flap_window",), file.flap_window, least=1.0),
            flap_cap_seconds=self._seconds(("flap_cap",), file.flap_cap, least=1.0),
        )
        return Routing(rules, receivers)

    def _fault(self, place: Place, what: str) -> None:
        shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        self.faults.append(f"{line_of(self._node, place)}: {shown}: {what}")

    def _twins(self, kind: str, names: Sequence[str], most: int) -> None:
        if not 1 <= len(names) <= most:
            self._fault((kind,), f"there are {len(names)}; write 1 to {most}")
        for name, count in Counter(names).items():
            if count > 1:
                self._fault((kind, len(names) - 1 - names[::-1].index(name)), f"{name!r} is written {count} times")
        for index, name in enumerate(names):
            if not _NAME.fullmatch(name):
                self._fault((kind, index, "name"), f"{name[:60]!r}: use lower-case letters, digits and `-`")

    def _receiver(self, index: int, item: _Receiver) -> Receiver:
        place: Place = ("receivers", index)
        url = item.url
        if bool(item.url) == bool(item.url_file):
            self._fault(place, "give either `url` or `url_file`")
        elif item.url_file:
            url = self._secret((*place, "url_file"), item.url_file)
        field = "url_file" if item.url_file else "url"
        if url and item.kind is not ReceiverKind.APPRISE:
            target = read_target(url, allow_private=True)
            if isinstance(target, str):
                self._fault((*place, field), target)
        elif url and not urllib.parse.urlsplit(url).scheme:
            self._fault((*place, field), "is no address of apprise; expected one such as slack://... or mailto://...")
        return Receiver(item.name, item.kind, url, item.send_resolved)

    def _secret(self, place: Place, name: str) -> str:
        try:
            text = (self._folder / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is not UTF-8"
            self._fault(place, f"{name} cannot be read: {said}; put the address alone into it")
            return ""
        if not text or len(text.splitlines()) != 1:
            self._fault(place, f"{name} must hold one line, the address")
            return ""
        return text

    def _route(self, index: int, item: _Route) -> Route:
        place: Place = ("routes", index)
        for at, name in enumerate(item.group_by):
            if not _FIELD.fullmatch(name):
                self._fault((*place, "group_by", at), f"{name[:60]!r} is no field or label, such as owner or subject")
        if len(item.escalate) > MAX_STEPS:
            self._fault((*place, "escalate"), f"there are {len(item.escalate)} steps; at most {MAX_STEPS} are taken")
        steps = tuple(self._step((*place, "escalate", at), step) for at, step in enumerate(item.escalate))
        if [step.after_seconds for step in steps] != sorted({step.after_seconds for step in steps}):
            self._fault((*place, "escalate"), "each step must come later than the one before")
        return Route(
            name=item.name,
            receivers=self._named((*place, "to"), item.to),
            matchers=self._matchers((*place, "match"), item.match),
            group_by=tuple(item.group_by),
            group_wait_seconds=self._seconds((*place, "group_wait"), item.group_wait),
            group_interval_seconds=self._seconds((*place, "group_interval"), item.group_interval),
            page_wait_seconds=self._seconds((*place, "page_wait"), item.page_wait),
            page_interval_seconds=self._seconds((*place, "page_interval"), item.page_interval),
            repeat_seconds=self._seconds((*place, "repeat"), item.repeat, least=1.0),
            escalate=steps,
        )

    def _step(self, place: Place, step: _Step) -> Step:
        after = self._seconds((*place, "after"), step.after, least=1.0)
        return Step(after, self._named((*place, "to"), step.to))

    def _inhibition(self, index: int, item: _Inhibition) -> Inhibition:
        place: Place = ("inhibit", index)
        for field in ("by", "over"):
            if not getattr(item, field):
                self._fault((*place, field), "is empty: it would match every alert")
        by, over = self._matchers((*place, "by"), item.by), self._matchers((*place, "over"), item.over)
        return Inhibition(by, over, tuple(item.equal))

    def _named(self, place: Place, names: Sequence[str]) -> tuple[str, ...]:
        known = [item.name for item in self._file.receivers]
        if not names:
            self._fault(place, "is empty; name at least one receiver")
        for at, name in enumerate(names):
            if name not in known:
                self._fault((*place, at), f"no receiver {name[:60]!r}; there are {', '.join(known) or 'none'}")
        return tuple(dict.fromkeys(names))

    def _matchers(self, place: Place, texts: Sequence[str]) -> tuple[Matcher, ...]:
        if len(texts) > MAX_MATCHERS:
            self._fault(place, f"there are {len(texts)}; at most {MAX_MATCHERS} are read")
        found = [self._try((*place, at), read_matcher, text) for at, text in enumerate(texts)]
        return tuple(item for item in found if item is not None)

    def _try(self, place: Place, read: Callable[[str], Matcher], text: str) -> Matcher | None:
        try:
            return read(text)
        except UsageError as error:
            self._fault(place, error.message)
            return None

    def _seconds(self, place: Place, value: str | float, *, least: float = 0.0) -> float:
        match = _DURATION.fullmatch(str(value))
        seconds = float(match[1]) * _UNITS[match[2] or ""] if match else -1.0
        if not least <= seconds <= _MOST_SECONDS:
            self._fault(place, f"{str(value)[:20]!r} is not a time from {least:g}s to 30d, such as 30s, 5m or 4h")
            return max(least, 1.0)
        return seconds


def check_extras(routing: Routing, has_apprise: Callable[[], bool]) -> None:
    """Raise UsageError when a receiver needs a package that is not installed."""
    needing = [item.name for item in routing.receivers if item.kind is ReceiverKind.APPRISE]
    if needing and not has_apprise():
        message = f"receiver {needing[0]} is of kind apprise, which needs the extra `notify`: install forestay[notify]"
        raise UsageError(VARIABLE, message)


def file_stamp(path: str) -> tuple[int, int]:
    """Return what changes when the file does: size and time of its last change; zeros where there is none."""
    try:
        found = pathlib.Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def unused(routing: Routing) -> list[str]:
    """Return the receivers that no route names: no fault, but worth a word."""
    named = {name for route in routing.rules.routes for name in route.receivers}
    named |= {name for route in routing.rules.routes for step in route.escalate for name in step.receivers}
    return [item.name for item in routing.receivers if item.name not in named]


def faults_of(error: UsageError) -> tuple[str, ...]:
    """Return every fault of an error, one a line."""
    return cast("tuple[str, ...]", getattr(error, "faults", ()) or (str(error),))
