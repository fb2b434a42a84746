"""What a file is, by its bytes and never by its name.

It decides one format for every file; a format says whether it may be admitted at all. A file that is a second format
as well (a zip's directory at the end of something else, opcodes of a pickle in front of it) is a polyglot. The name
counts only afterwards, where it promises something that the bytes do not hold. Pure over a Source; used by `examine`.
"""

import codecs
import dataclasses
import enum
import zlib
from collections.abc import Mapping

from forestay.artefacts import numpy_file
from forestay.artefacts.findings import Flaw, FlawKind
from forestay.artefacts.gguf_file import MAGIC as GGUF_MAGIC
from forestay.artefacts.onnx_file import looks_like_onnx
from forestay.artefacts.pickle_file import acts_as_pickle, is_old_torch
from forestay.artefacts.pickle_machine import Reading
from forestay.artefacts.pickle_opcodes import walk
from forestay.artefacts.protobuf import BYTES, FIXED32, VARINT, Message
from forestay.artefacts.safetensors_file import looks_like_safetensors
from forestay.artefacts.source import Broken, Source, head_of, pieces_of
from forestay.artefacts.tar_file import looks_like_tar
from forestay.artefacts.zip_file import ends_as_zip

HEAD_BYTES = 4096
MAX_TEXT_BYTES = 512 * 1024 * 1024


class Format(enum.StrEnum):
    """What a file is."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    GGUF = "gguf"
    NPY = "npy"
    NPZ = "npz"
    EXTERNAL = "onnx_external_data"  # bytes without a format of their own, named by an ONNX model beside it
    TEXT = "text"
    MEDIA = "media"
    FONT = "font"
    TOKENS = "sentencepiece"
    PICKLE = "pickle"
    TORCH_ZIP = "torch_zip"
    TORCH_TAR = "torch_tar"
    TORCHSCRIPT = "torchscript"
    KERAS = "keras"
    HDF5 = "hdf5"
    ZIP = "zip"
    ARCHIVE = "archive"
    EXECUTABLE = "executable"
    TENSORFLOW = "tensorflow"
    UNKNOWN = "unknown"


WEIGHTS = frozenset({Format.SAFETENSORS, Format.ONNX, Format.GGUF, Format.NPY, Format.NPZ, Format.EXTERNAL})
OTHERS = frozenset({Format.TEXT, Format.MEDIA, Format.FONT, Format.TOKENS})  # admitted, but no weights
WAIVABLE = frozenset({Format.PICKLE, Format.TORCH_ZIP})
PICKLES = WAIVABLE | {Format.TORCH_TAR}
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, GGUF_MAGIC, Format.GGUF),
    (0, numpy_file.MAGIC, Format.NPY),
    *((0, magic, Format.EXECUTABLE) for magic in (b"\x7fELF", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf")),
    *((0, magic, Format.EXECUTABLE) for magic in (b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")),
    *((0, magic, Format.EXECUTABLE) for magic in (b"\0asm", b"dex\n", b"BC\xc0\xde", b"!<arch>\n")),
    *((0, magic, Format.ARCHIVE) for magic in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"LZIP")),
    *((0, magic, Format.ARCHIVE) for magic in (b"\x04\x22\x4d\x18", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")),
    *((0, magic, Format.ARCHIVE) for magic in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"ZF0x")),
    (0, b"\x89PNG\r\n\x1a\n", Format.MEDIA),
    *((0, magic, Format.MEDIA) for magic in (b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"fLaC", b"OggS", b"ID3")),
    *((8, magic, Format.MEDIA) for magic in (b"WAVE", b"WEBP")),
    *((4, magic, Format.MEDIA) for magic in (b"ftyp",)),
    *((0, magic, Format.FONT) for magic in (b"\0\x01\0\0\0", b"OTTO", b"ttcf", b"wOFF", b"wOF2")),
    (4, b"TFL3", Format.TENSORFLOW),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048)  # the superblock may stand behind a block of the user's own
_PYC_MAGIC_TAIL = b"\r\n"
_SUFFIXES: Mapping[str, frozenset[Format]] = {
    ".safetensors": frozenset({Format.SAFETENSORS}),
    ".onnx": frozenset({Format.ONNX}),
    ".gguf": frozenset({Format.GGUF}),
    ".npy": frozenset({Format.NPY}),
    ".npz": frozenset({Format.NPZ}),
    **dict.fromkeys((".py", ".pyi", ".json", ".yaml", ".yml", ".toml", ".md"), frozenset({Format.TEXT})),
}
_NEVER_TEXT = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".h5", ".hdf5", ".keras", ".bin")


@dataclasses.dataclass(frozen=True, slots=True)
class Classified:
    """The format, what is wrong with being it, and the walk as a pickle from the first byte."""

    format: Format
    flaws: tuple[Flaw, ...]
    as_pickle: Reading


def classify(source: Source) -> Classified:
    """Return what a file is; reads its first and last bytes, and all of it only when it may be text."""
    as_pickle = walk(source) if source.size else Reading(None, (), (), acts=False)
    found = _format(source, as_pickle)
    return Classified(found, tuple(_second_formats(source, found, as_pickle)), as_pickle)


def suffix_flaws(name: str, found: Format, source: Source) -> list[Flaw]:
    """Return what a file's name promises that its bytes do not hold."""
    suffix = "." + name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
    if found is Format.TEXT and head_of(source, 48).startswith(b"version https://git-lfs.github.com/spec/"):
        return [Flaw(FlawKind.SUFFIX, "byte 0", "is a pointer of Git LFS; the weights themselves were not fetched")]
    promised = _SUFFIXES.get(suffix)
    if promised is not None and found not in promised:
        return [Flaw(FlawKind.SUFFIX, "", f"is named {suffix}, its bytes are {found}")]
    if found is Format.TEXT and suffix in _NEVER_TEXT:
        return [Flaw(FlawKind.SUFFIX, "", f"is named {suffix}, its bytes are text")]
    return []


def _format(source: Source, as_pickle: Reading) -> Format:
    head = head_of(source, HEAD_BYTES)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Format.ZIP  # which kind of zip is seen by its members, see `examine`
    found = _by_header(source, head)  # first: the length in front of safetensors may look like any short magic number
    if found is None:
        by_magic = (found for offset, magic, found in _MAGIC if head[offset : offset + len(magic)] == magic)
        found = next((found for found in by_magic if _is_confirmed(head, found)), None)
    return found or _by_structure(source, as_pickle)


def _is_confirmed(head: bytes, found: Format) -> bool:
    """Look behind the magic numbers of two bytes, which plain numbers have by chance."""
    if found is Format.ARCHIVE and head[:1] in {b"\x78", b"\x1f"}:
        try:
            zlib.decompressobj(wbits=47).decompress(head, 64)
        except zlib.error:
            return False
    if head[:2] == b"MZ":
        place = int.from_bytes(head[60:64], "little")
        return place + 4 > len(head) or head[place : place + 2] in {b"PE", b"NE", b"LE", b"LX"}
    return True


def _by_header(source: Source, head: bytes) -> Format | None:
    """Tell the formats whose first bytes have a shape rather than a magic number."""
    if _is_hdf5(head):
        return Format.HDF5
    if looks_like_safetensors(head, source.size):
        return Format.SAFETENSORS
    if looks_like_tar(source):
        return Format.TORCH_TAR if head.startswith((b"sys_info\0", b"pickle\0", b"./pickle\0")) else Format.ARCHIVE
    return Format.EXECUTABLE if _looks_like_bytecode(head) else None


def _by_structure(source: Source, as_pickle: Reading) -> Format:
    """Tell the formats that have no magic number apart."""
    if acts_as_pickle(source, as_pickle):
        return Format.PICKLE
    if looks_like_text(source):
        return Format.TEXT
    if as_pickle.plain and as_pickle.end == source.size:
        return Format.PICKLE
    if looks_like_onnx(source):
        return Format.ONNX
    if _looks_like_tokens(source):
        return Format.TOKENS
    return Format.PICKLE if as_pickle.names or is_old_torch(as_pickle) else Format.UNKNOWN


def _second_formats(source: Source, found: Format, as_pickle: Reading) -> list[Flaw]:
    flaws: list[Flaw] = []
    acts = acts_as_pickle(source, as_pickle) or (as_pickle.names and found is not Format.TEXT)
    if found is not Format.PICKLE and acts:
        flaws.append(Flaw(FlawKind.POLYGLOT, "byte 0", f"is {found} and begins as a pickle that acts"))
    if found is not Format.ZIP and source.size and ends_as_zip(source):
        flaws.append(Flaw(FlawKind.POLYGLOT, "end", f"is {found} and ends as a zip archive"))
    head = head_of(source, HEAD_BYTES)
    if found not in {Format.ARCHIVE, Format.TORCH_TAR, Format.TEXT} and looks_like_tar(source):
        flaws.append(Flaw(FlawKind.POLYGLOT, "byte 257", f"is {found} and a tar archive"))
    if found is not Format.HDF5 and _is_hdf5(head):
        flaws.append(Flaw(FlawKind.POLYGLOT, "byte 512", f"is {found} and HDF5"))
    return flaws


def _is_hdf5(head: bytes) -> bool:
    return any(head[place : place + 8] == _HDF5 for place in _HDF5_PLACES)


def looks_like_text(source: Source) -> bool:
    """Tell whether all bytes are UTF-8 without control characters but tab, line ends, form feed and escape."""
    if source.size > MAX_TEXT_BYTES:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    forbidden = bytes(byte for byte in range(32) if byte not in b"\t\n\r\f\x1b") + b"\x7f"
    try:
        for piece in pieces_of(source):
            if len(piece.translate(None, forbidden)) != len(piece):
                return False
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _looks_like_bytecode(head: bytes) -> bool:
    """Compiled Python: a magic number of two bytes and CR LF, then flags 0 to 3, then a marshalled code object."""
    return (
        len(head) > 16
        and head[2:4] == _PYC_MAGIC_TAIL
        and head[4] <= 3
        and head[5:8] == b"\0\0\0"
        and (head[16] & 0x7F) == ord("c")
    )


def _looks_like_tokens(source: Source) -> bool:
    """A SentencePiece model: pieces of text, score and type (sentencepiece_model.proto), then its specifications."""
    message, pieces = Message(source), 0
    try:
        for field in message.fields(0, source.size):
            if field.number not in {1, 2, 3, 4, 5} or field.wire != BYTES:
                return False
            if field.number == 1:
                kinds = {part.number: part.wire for part in message.fields(field.start, field.end)}
                if kinds.get(1) != BYTES or not kinds.items() <= {(1, BYTES), (2, FIXED32), (3, VARINT)}:
                    return False
                pieces += 1
    except Broken:
        return False
    return pieces > 0
