"""The file that names providers of detectors, as values; each fault is told with its field and the mend.

Decides what a provider may be called and what it must say of itself, and where a transcriber of sound is. Secrets are
named by file, never written here.
Read at start by the gateway and the worker (`FORESTAY_SAFETY_PROVIDERS`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from forestay.errors import UsageError
from forestay.operator_file import read_operator_file
from forestay.safety.taxonomy import Category, Modality

VARIABLE = "FORESTAY_SAFETY_PROVIDERS"
MAX_PROVIDERS = 32
MAX_BATCH = 64
MAX_SOUND_BYTES = 64 * 1024 * 1024
_ID = re.compile(r"[a-z][a-z0-9-]{0,62}@[0-9]{1,6}")


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """A detector behind HTTP."""

    detector_id: str
    url: str
    covers: Mapping[Modality, frozenset[Category]]
    wire: Literal["forestay", "openai"] = "forestay"
    model: str = ""  # that the provider is asked to use, where its form knows such a word
    secret_file: str = ""
    timeout_seconds: float = 2.0
    batch: int = 8


@dataclasses.dataclass(frozen=True, slots=True)
class TranscriberAt:
    """Who writes down what is said in sound, behind HTTP."""

    url: str
    secret_file: str = ""
    timeout_seconds: float = 20.0
    max_bytes: int = 25 * 1024 * 1024  # of one recording; a larger one is unreadable


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    url: str
    covers: dict[Modality, list[Category]]
    wire: Literal["forestay", "openai"] = "forestay"
    model: str = ""
    secret_file: str = ""
    timeout_seconds: float = 2.0
    batch: int = 8


class _TranscriberEntry(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    secret_file: str = ""
    timeout_seconds: float = 20.0
    max_bytes: int = 25 * 1024 * 1024


class _File(msgspec.Struct, forbid_unknown_fields=True):
    providers: list[_Entry] = msgspec.field(default_factory=list[_Entry])
    transcriber: _TranscriberEntry | None = None


def read_providers(path: str) -> list[Provider]:
    """Return the providers of a file, none for an empty path; UsageError says what is wrong and how to mend it."""
    parsed = _parsed(path)
    if len(parsed.providers) > MAX_PROVIDERS:
        raise UsageError(VARIABLE, f"{path}: {len(parsed.providers)} providers; at most {MAX_PROVIDERS} are asked")
    found = [_provider(entry, f"{path}: providers[{index}]") for index, entry in enumerate(parsed.providers)]
    ids = [provider.detector_id for provider in found]
    doubled = next((name for name in ids if ids.count(name) > 1), "")
    if doubled:
        raise UsageError(VARIABLE, f"{path}: two providers are called {doubled}; give each an id of its own")
    return found


def read_transcriber(path: str) -> TranscriberAt | None:
    """Return the transcriber of a file, None where it names none; UsageError as for providers."""
    entry, place = _parsed(path).transcriber, f"{path}: transcriber"
    if entry is None:
        return None
    if not entry.url.startswith(("https://", "http://")):
        raise UsageError(VARIABLE, f"{place}.url: {entry.url!r} is no address; expected https://...")
    if not 0.001 <= entry.timeout_seconds <= 60.0:
        raise UsageError(VARIABLE, f"{place}.timeout_seconds: {entry.timeout_seconds:g}; expected 0.001 to 60")
    if not 1 <= entry.max_bytes <= MAX_SOUND_BYTES:
        raise UsageError(VARIABLE, f"{place}.max_bytes: {entry.max_bytes}; expected 1 to {MAX_SOUND_BYTES}")
    return TranscriberAt(entry.url, entry.secret_file, entry.timeout_seconds, entry.max_bytes)


def heard_bytes(path: str) -> int:
    """Return how large a recording may be that the file's transcriber is sent; 0 where it names none."""
    at = read_transcriber(path)
    return at.max_bytes if at is not None else 0


def _parsed(path: str) -> _File:
    if not path:
        return _File()
    return read_operator_file(path, _File, VARIABLE, "docs/howto/plug-in-a-classifier.md")


def _provider(entry: _Entry, place: str) -> Provider:
    if not _ID.fullmatch(entry.id):
        raise UsageError(VARIABLE, f"{place}.id: {entry.id!r} is no id; expected a name and version, like shield@1")
    if not entry.url.startswith(("https://", "http://")):
        raise UsageError(VARIABLE, f"{place}.url: {entry.url!r} is no address; expected https://...")
    if not entry.covers or not all(entry.covers.values()):
        raise UsageError(VARIABLE, f"{place}.covers: is empty; expected categories by modality, {{image: [sexual]}}")
    if not 0.001 <= entry.timeout_seconds <= 60.0:
        raise UsageError(VARIABLE, f"{place}.timeout_seconds: {entry.timeout_seconds:g}; expected 0.001 to 60")
    if not 1 <= entry.batch <= MAX_BATCH:
        raise UsageError(VARIABLE, f"{place}.batch: {entry.batch}; expected 1 to {MAX_BATCH}")
    if entry.wire == "openai" and Category.MINORS in {name for names in entry.covers.values() for name in names}:
        raise UsageError(VARIABLE, f"{place}.covers: minors is matched by hash and marker only; leave it out")
    covers = {modality: frozenset(names) for modality, names in entry.covers.items()}
    return Provider(
        entry.id, entry.url, covers, entry.wire, entry.model, entry.secret_file, entry.timeout_seconds, entry.batch
    )
