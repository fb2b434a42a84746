"""What a file is and how it may be named and shown, judged by its first bytes before its name or its sender's word.

Decides the content type, a file name that is safe in URLs and headers, and whether a browser may show the file in
place. Does not decode anything. Callers: the media store at save, the gateway at download.
"""

import mimetypes
import re
import unicodedata
from collections.abc import Callable

OCTET_STREAM = "application/octet-stream"
SNIFF_BYTES = 64  # as many first bytes as any rule below looks at

# Shown in place: formats that carry no script of their own. Everything else is offered as a download.
_INLINE = ("image/", "video/", "audio/")
_INLINE_ALSO = frozenset({"text/plain", "application/json"})
_SCRIPTABLE = frozenset({"image/svg+xml"})
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,100}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,16}")
_MAX_STEM = 100

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"glTF", "model/gltf-binary"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_BRANDS: tuple[tuple[tuple[bytes, ...], str], ...] = (  # ISO base media file format: the major brand after "ftyp"
    ((b"avif", b"avis"), "image/avif"),
    ((b"heic", b"heix", b"mif1"), "image/heic"),
    ((b"M4A ", b"M4B "), "audio/mp4"),
    ((b"qt  ",), "video/quicktime"),
)


def content_type_of(head: bytes, *, file_name: str = "", declared: str = "") -> str:
    """Return the content type of a file that starts with `head` (`SNIFF_BYTES` are enough).

    Bytes that name their format win; then a well-formed declared type; then the file name's suffix. A declared picture
    whose bytes are text is not believed: it becomes `application/octet-stream`.
    """
    seen = _by_bytes(head)
    if seen is not None:
        return _refined(seen, head, declared)
    claimed = declared.partition(";")[0].strip().lower()
    if not _CONTENT_TYPE.fullmatch(claimed) or claimed == OCTET_STREAM:
        claimed = (mimetypes.guess_type(file_name)[0] or OCTET_STREAM) if file_name else OCTET_STREAM
    if claimed.startswith(("image/", "video/", "audio/")) and claimed not in _SCRIPTABLE and _looks_like_text(head):
        return OCTET_STREAM
    return claimed


def suffix_of(content_type: str) -> str:
    """Return the usual file suffix of a content type, with its dot; `.bin` when there is none."""
    special = {"audio/wav": ".wav", "image/webp": ".webp", "image/avif": ".avif", "audio/flac": ".flac"}
    return special.get(content_type) or mimetypes.guess_extension(content_type) or ".bin"


def safe_file_name(name: str, content_type: str = OCTET_STREAM) -> str:
    """Return a name of letters, digits, dot, dash and underscore, at most 120 characters, never empty or hidden."""
    last = re.split(r"[/\\]", name)[-1]
    stem, _, suffix = last.rpartition(".")
    if not stem or not _SUFFIX.fullmatch(suffix):
        stem, suffix = last, suffix_of(content_type).removeprefix(".")
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    cleaned = _UNSAFE.sub("_", plain).strip("._-")[:_MAX_STEM].rstrip("._-")
    return f"{cleaned or 'file'}.{suffix}"


def shown_in_place(content_type: str) -> bool:
    """Tell whether a browser may show this type in place; False means: offer it as a download."""
    if content_type in _SCRIPTABLE:
        return False
    return content_type.startswith(_INLINE) or content_type in _INLINE_ALSO


def _by_bytes(head: bytes) -> str | None:
    for prefix, content_type in _PREFIXES:
        if head.startswith(prefix):
            return content_type
    rules: tuple[Callable[[bytes], str | None], ...] = (_riff, _iso_media, _matroska, _mpeg_audio)
    for rule in rules:
        if found := rule(head):
            return found
    return None


def _riff(head: bytes) -> str | None:
    return _RIFF.get(head[8:12]) if head.startswith(b"RIFF") else None


def _iso_media(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    for brands, content_type in _BRANDS:
        if head[8:12] in brands:
            return content_type
    return "video/mp4"


def _matroska(head: bytes) -> str | None:
    if not head.startswith(b"\x1aE\xdf\xa3"):
        return None
    return "video/webm" if b"webm" in head else "video/x-matroska"


def _mpeg_audio(head: bytes) -> str | None:
    # Frame sync, then MPEG audio layers I to III (ISO/IEC 11172-3) or ADTS, whose layer bits are zero.
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    return "audio/aac" if head[1] & 0xF6 == 0xF0 else "audio/mpeg"


def _refined(seen: str, head: bytes, declared: str) -> str:
    """Believe a declared subtype where the container leaves it open: audio in MP4, office files in ZIP, ..."""
    claimed = declared.partition(";")[0].strip().lower()
    open_ended = {
        "video/mp4": {"audio/mp4", "audio/x-m4a"},
        "audio/ogg": {"video/ogg", "audio/opus"},
        "video/webm": {"audio/webm"},
        "application/zip": {
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "model/vnd.usdz+zip",
        },
    }
    if head and claimed in open_ended.get(seen, set()):
        return claimed
    return seen


def _looks_like_text(head: bytes) -> bool:
    return bool(head.strip()) and all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F for byte in head)
