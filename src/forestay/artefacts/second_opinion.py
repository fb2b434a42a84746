"""Other people's readers as a second opinion: fickling on pickles, the formats' own libraries on the rest.

The one module that imports them. It decides when a second reader disagrees: fickling must read the pickle to its end,
see no import outside our allow-list, and call nothing overtly malicious; a library must open what we would admit. They
parse a stranger's bytes, so they run in the limited child only. None of them is needed to refuse.
"""

# The libraries are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.formats import PICKLES, Format
from forestay.artefacts.pickle_names import is_allowed
from forestay.artefacts.source import Broken, Source, pieces_of
from forestay.artefacts.zip_file import open_member, read_members

MAX_PICKLE_BYTES = 256 * 1024 * 1024
_INSTALL = "is not installed here; pip install 'forestay[artefacts]'"


def opinion_of(found: Format, source: Source, path: pathlib.Path | None) -> list[Flaw]:
    """Return what a second reader says against a file; empty when it agrees. `path` is where the file lies alone."""
    if found in PICKLES or found is Format.NPY:
        return _pickle_opinion(found, source)
    reader = _LIBRARIES.get(found)
    if reader is None or path is None:
        return []
    try:
        reader(path)
    except ImportError as error:
        return [_against(f"{error.name} {_INSTALL}")]
    except Exception as error:  # noqa: BLE001 - whatever a library raises, it could not read the file
        return [_against(f"{found}'s own library: {type(error).__name__}: {shown(str(error))}")]
    return []


class _Name(Protocol):
    name: str


class _Import(Protocol):
    module: str | None
    names: list[_Name]


def _pickle_opinion(found: Format, source: Source) -> list[Flaw]:
    try:
        from fickling.analysis import Severity, check_safety  # noqa: PLC0415 - an extra, and it parses: child only
        from fickling.fickle import StackedPickle  # noqa: PLC0415 - as above
    except ImportError:
        return [_against(f"fickling {_INSTALL}")]
    try:
        flaws: list[Flaw] = []
        for pickled in StackedPickle.load(_pickle_bytes(found, source)):
            flaws += _foreign_imports(cast("list[_Import]", pickled.properties.imports))
            if check_safety(pickled).severity >= Severity.LIKELY_OVERTLY_MALICIOUS:
                flaws.append(_against("fickling calls it overtly malicious"))
    except Broken as stop:
        return [stop.flaw]
    except Exception as error:  # noqa: BLE001 - whatever it raises, it could not read the pickle
        return [_against(f"fickling cannot read it: {type(error).__name__}: {shown(str(error))}")]
    return flaws


def _foreign_imports(imports: list[_Import]) -> list[Flaw]:
    names = [(item.module or "", alias.name) for item in imports for alias in item.names]
    return [
        _against(f"fickling sees {shown(f'{module}.{name}')}") for module, name in names if not is_allowed(module, name)
    ]


def _pickle_bytes(found: Format, source: Source) -> bytes:
    part = source
    if found is Format.TORCH_ZIP:
        member = next(item for item in read_members(source) if item.name.endswith("data.pkl"))
        part = open_member(source, member, MAX_PICKLE_BYTES)
    if found is Format.NPY:
        width = 2 if source.read(6, 1) == b"\1" else 4
        start = 8 + width + int.from_bytes(source.read(8, width), "little")
        return source.read(start, min(source.size - start, MAX_PICKLE_BYTES))
    if part.size > MAX_PICKLE_BYTES:
        raise ValueError(f"larger than {MAX_PICKLE_BYTES} bytes")
    return b"".join(pieces_of(part))


def _read_safetensors(path: pathlib.Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415 - an extra

    with safe_open(path, "np") as opened:
        for key in opened.keys():  # noqa: SIM118 - it is no dict
            opened.get_slice(key).get_shape()


def _read_onnx(path: pathlib.Path) -> None:
    import onnx  # noqa: PLC0415 - an extra

    onnx.checker.check_model(str(path))


def _read_gguf(path: pathlib.Path) -> None:
    from gguf import GGUFReader  # noqa: PLC0415 - an extra

    GGUFReader(path)


_LIBRARIES: Mapping[Format, Callable[[pathlib.Path], None]] = {
    Format.SAFETENSORS: _read_safetensors,
    Format.ONNX: _read_onnx,
    Format.GGUF: _read_gguf,
}


def _against(what: str) -> Flaw:
    return Flaw(FlawKind.OPINION, "", what)
