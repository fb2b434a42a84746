"""Looks at one file: what it is and what is wrong with it.

It joins the readers of the formats. Every admitted format has a reader; everything else is a flaw by itself. It opens
nothing by name and knows no policy: `folder` walks files, `decide` judges. Pure over a Source.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import cast

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.formats import Format, classify, suffix_flaws
from forestay.artefacts.gguf_file import read_gguf
from forestay.artefacts.numpy_file import MAGIC as NPY_MAGIC
from forestay.artefacts.numpy_file import read_npy
from forestay.artefacts.onnx_file import read_onnx
from forestay.artefacts.onnx_tensor import External
from forestay.artefacts.pickle_file import read_pickle, read_torch_tar, read_torch_zip
from forestay.artefacts.pickle_opcodes import walk
from forestay.artefacts.safetensors_file import read_safetensors
from forestay.artefacts.source import Broken, Source, pieces_of
from forestay.artefacts.templates import template_problem
from forestay.artefacts.zip_file import Member, open_member, read_members

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_CONFIG_BYTES = 8 * 1024 * 1024
_NPY_HEAD_BYTES = 16 * 1024
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|TFOpLambda|SlicingOpLambda)"')
_FOREIGN = re.compile(rb'"module"\s*:\s*"(?!keras|builtins|null)([^"]{1,80})"')


@dataclasses.dataclass(frozen=True, slots=True)
class Examined:
    """One file: its format, its flaws, and the files that it needs beside it."""

    format: Format
    flaws: tuple[Flaw, ...]
    external: tuple[External, ...] = ()


def examine(name: str, source: Source) -> Examined:
    """Return what a file is and every flaw found; `name` only tells what the bytes should be."""
    try:
        classified = classify(source)
        found, flaws, external = classified.format, list(classified.flaws), ()
        if found is Format.ONNX:
            reading = read_onnx(source)
            flaws, external = flaws + list(reading.flaws), reading.external
        elif found is Format.PICKLE:
            flaws += read_pickle(source, classified.as_pickle)
        elif found is Format.ZIP:
            found, more = _read_zip(source)
            flaws += more
        else:
            flaws += _READERS[found](source)
        flaws += suffix_flaws(name, found, source)
    except Broken as stop:
        return Examined(Format.UNKNOWN, (stop.flaw,))
    return Examined(found, tuple(flaws), external)


def sha256_of(source: Source) -> str:
    """Return the SHA-256 of all bytes, in hex."""
    seen = hashlib.sha256()
    for piece in pieces_of(source):
        seen.update(piece)
    return seen.hexdigest()


def _read_zip(source: Source) -> tuple[Format, list[Flaw]]:
    """Tell by its members which kind of zip it is, and read it as that."""
    try:
        members = read_members(source)
    except Broken as stop:
        return Format.ZIP, [stop.flaw, *_zip_flaws(source)]
    names = {member.name for member in members}
    if any(name.endswith("constants.pkl") or "/code/" in f"/{name}" for name in names):
        what = "is a TorchScript archive, which is a program"
        return Format.TORCHSCRIPT, [Flaw(FlawKind.CODE, "archive", what), *read_torch_zip_names(source)]
    if any(name.endswith("data.pkl") for name in names):
        return Format.TORCH_ZIP, read_torch_zip(source)
    if {"config.json", "metadata.json"} <= names:
        return Format.KERAS, _read_keras(source, members)
    if members and all(_is_npy(source, member) for member in members):
        return Format.NPZ, _read_npz(source, members)
    return Format.ZIP, [Flaw(FlawKind.ARCHIVE, "byte 0", "is a zip archive"), *_zip_flaws(source)]


def read_torch_zip_names(source: Source) -> list[Flaw]:
    """Return what the pickles of a TorchScript archive name, beside the code that it is."""
    return [flaw for flaw in read_torch_zip(source) if flaw.kind is FlawKind.PICKLE_GLOBAL]


def _zip_flaws(source: Source) -> list[Flaw]:
    """Name the pickles that hide in a zip archive of no known kind; it is refused in any case."""
    flaws: list[Flaw] = []
    try:
        for member in read_members(source)[:100]:
            part = open_member(source, member, MAX_CONFIG_BYTES)
            reading = walk(part) if part.size else None
            if reading is not None and reading.acts:
                where = f"member {shown(member.name)}"
                flaws += [Flaw(flaw.kind, f"{where} {flaw.where}", flaw.what) for flaw in reading.flaws]
    except Broken:
        return flaws
    return flaws


def _is_npy(source: Source, member: Member) -> bool:
    return member.size >= len(NPY_MAGIC) and open_member(source, member, _NPY_HEAD_BYTES).read(0, 6) == NPY_MAGIC


def _read_npz(source: Source, members: list[Member]) -> list[Flaw]:
    flaws: list[Flaw] = []
    for member in members:
        part = open_member(source, member, _NPY_HEAD_BYTES)
        where = f"member {shown(member.name)}"
        flaws += [Flaw(flaw.kind, f"{where} {flaw.where}", flaw.what) for flaw in read_npy(part, member.size)]
    return flaws


def _read_keras(source: Source, members: list[Member]) -> list[Flaw]:
    flaws = [Flaw(FlawKind.ARCHIVE, "archive", "is a Keras model, whose layers may carry code")]
    for member in members:
        if member.name == "config.json":
            flaws += _keras_code(open_member(source, member, MAX_CONFIG_BYTES))
    return flaws


def _keras_code(source: Source) -> list[Flaw]:
    data = source.read(0, min(source.size, MAX_CONFIG_BYTES))
    flaws = [Flaw(FlawKind.CODE, "config", "a lambda layer")] if _LAMBDA.search(data) else []
    foreign = _FOREIGN.search(data)
    if foreign is not None:
        flaws.append(Flaw(FlawKind.CODE, "config", f"imports {shown(foreign[1].decode('utf-8', 'replace'))}"))
    return flaws


def _read_hdf5(source: Source) -> list[Flaw]:
    return [Flaw(FlawKind.ARCHIVE, "byte 0", "is HDF5, whose Keras layers may carry code"), *_keras_code(source)]


def _read_text(source: Source) -> list[Flaw]:
    """Text is code or settings of the model's owner; only a chat template in JSON is looked at."""
    if not 0 < source.size <= MAX_JSON_BYTES or b"chat_template" not in (data := source.read(0, source.size)):
        return []
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return []
    template = cast("dict[str, object]", value).get("chat_template") if isinstance(value, dict) else None
    texts = [template] if isinstance(template, str) else []
    if isinstance(template, list):
        named = [cast("dict[str, object]", item) for item in cast("list[object]", template) if isinstance(item, dict)]
        texts = [text for item in named if isinstance(text := item.get("template"), str)]
    problems = filter(None, map(template_problem, texts))
    return [Flaw(FlawKind.TEMPLATE, "chat_template", problem) for problem in problems]


def _fixed(kind: FlawKind, what: str) -> Callable[[Source], list[Flaw]]:
    return lambda _: [Flaw(kind, "byte 0", what)]


def _nothing(_: Source) -> list[Flaw]:
    return []


_READERS: Mapping[Format, Callable[[Source], list[Flaw]]] = {
    Format.SAFETENSORS: read_safetensors,
    Format.GGUF: read_gguf,
    Format.NPY: read_npy,
    Format.TEXT: _read_text,
    Format.MEDIA: _nothing,
    Format.FONT: _nothing,
    Format.TOKENS: _nothing,
    Format.TORCH_TAR: read_torch_tar,
    Format.HDF5: _read_hdf5,
    Format.ARCHIVE: _fixed(FlawKind.ARCHIVE, "is an archive or compressed"),
    Format.EXECUTABLE: _fixed(FlawKind.EXECUTABLE, "is a program, a library or compiled Python"),
    Format.TENSORFLOW: _fixed(FlawKind.CODE, "is a graph of TensorFlow, whose operators may read and write files"),
    Format.UNKNOWN: _fixed(FlawKind.UNKNOWN, "its bytes belong to no admitted format"),
}
