"""What letters without spaces are: bytes in base64 that nobody reads, or words that somebody does.

Base64 mixes capitals, small letters and digits (RFC 4648: 26, 26 and 10 of its 64 letters); words written with
underscores, or run together, are mostly small letters or full of separators. Pure. Decides what counts as media, as a
text, and as a sentence spelled where nobody looks for one: in the name of a field or a file, in an address, between
the bytes of a file. Judges nothing. Called by `fields`, by `safety/leaves` and by the worker.
"""

import base64
import binascii
import re
import string
from urllib.parse import unquote

from forestay.media.formats import SNIFF_BYTES, content_type_of
from forestay.safety.text import words

SENTENCE_WORDS = 4  # English words, of whatever length: fewer are a name
SENTENCE_SHARE = 0.6  # of the words, as `language` asks of a text to call it English
SCANNED_BYTES = 256 * 1024  # of each end of a file, for words between its bytes
_SCANNED_CHARS = 64 * 1024  # of the base64 of a data: URI, for the same
_PACKED_CHARS = 256  # base64 of no known format: shorter ones may be words whatever they look like
_MEDIA_CHARS = 64  # of a known one
_WINDOW, _WINDOWS = 1_024, 64  # that are looked at, spread evenly
_READABLE_SHARE = 1 / 8  # of the windows
_SMALL, _SEPARATED, _CAPITAL, _ZEROS = 0.62, 0.1, 0.85, 0.3  # shares of letters; base64 of zeros is the letter A
_FEW_LETTERS = 8  # different ones: a run of padding says nothing
_HEAD = re.compile(r"\s*(?:[\w.+-]{1,64}/[\w.+-]{1,100})?(?:\s*;\s*[\w.+-]{1,32}(?:=[\w.+-]{0,32})?){0,4}\s*")
_HOST = re.compile(r"\w+://(?:(?:[\w-]+\.)+\w+(?::\d+)?(?=/|$))?")
_SPELLED = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[A-Z]")
_RUN = re.compile(rb"[\t\n\r\x20-\x7e]{16,}")
_HEAD_CHARS = 1_024  # a head that is longer is none
_LOWER, _UPPER = string.ascii_lowercase.encode(), string.ascii_uppercase.encode()
_LETTERS = string.ascii_letters.encode() + b"0123456789+/_-="
_ONE_ALPHABET = str.maketrans("-_", "+/")
_MEDIA = ("image/", "video/", "audio/")
_WEAK = frozenset({"image/bmp", "audio/mpeg", "audio/aac"})  # named by so few bits that words would be taken for them


def is_packed(text: str) -> bool:
    """Tell whether a string is base64 of what is no text, lines broken or not: no words, but maybe a picture."""
    bare = text.strip()
    joined = _joined(bare) if len(bare) >= _MEDIA_CHARS else None
    if joined is None or reads(joined):
        return False
    head = unpacked_head(joined)
    if head is None or text_in(head, cut=True) is not None:
        return False
    return len(joined) >= _PACKED_CHARS or is_media(head)


def reads(letters: str) -> bool:
    """Tell whether letters without spaces may be words; base64 is not, but for chance in a short one."""
    raw = letters.encode("ascii", "replace")
    starts = range(0, max(1, len(raw) - _WINDOW // 2), _WINDOW)
    step = max(1, len(starts) // _WINDOWS)
    seen = [_window_reads(raw[start : start + _WINDOW]) for start in starts[::step]]
    return sum(seen) >= _READABLE_SHARE * len(seen)


def is_media(head: bytes) -> bool:
    """Tell whether first bytes name a format of pictures, films or sound beyond doubt."""
    kind = content_type_of(head[:SNIFF_BYTES]) if head else ""
    return kind.startswith(_MEDIA) and kind not in _WEAK


def text_in(data: bytes, *, cut: bool = False) -> str | None:
    """Read bytes as a text, UTF-8 or UTF-16; None where they are none. `cut`: a letter may be broken at the end."""
    codec = "utf-16-le" if data[1::2].count(0) * 2 > len(data) // 2 else "utf-8"
    codec = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else codec
    try:
        text = data[: len(data) // 2 * 2 if codec != "utf-8" else None].decode(codec)
    except UnicodeDecodeError as error:
        if not cut or error.start < len(data) - 4:
            return None
        text = data[: error.start].decode(codec, "replace")
    return text if "".join(text.split()).isprintable() else None


def is_data_uri(text: str) -> bool:
    """Tell whether a string is a data: URI (RFC 2397), and not a text that begins with the word."""
    head, comma, _ = text[:_HEAD_CHARS].lstrip()[5:].partition(",")
    return text[:_HEAD_CHARS].lstrip()[:5].lower() == "data:" and bool(comma) and _HEAD.fullmatch(head) is not None


def said_by(uri: str) -> str | None:
    """Return what a data: URI says (RFC 2397), whatever it calls itself; None where nobody reads anything in it.

    What only begins like one is a text.
    """
    if not is_data_uri(uri):
        return uri
    comma = uri.index(",")
    body = uri[comma + 1 :]
    if not uri[:comma].rstrip().lower().endswith(";base64"):
        return unquote(body)
    packed = _joined(unquote(body) if "%" in body else body)
    begins = None if packed is None or (len(packed) >= _MEDIA_CHARS and reads(packed)) else unpacked_head(packed)
    if packed is None or begins is None:
        return unquote(body)
    if text_in(begins, cut=True) is None:
        return words_in(_unpacked(packed[:_SCANNED_CHARS]) or b"") or None
    return (_unpacked(packed) or b"").decode("utf-16" if b"\0" in begins else "utf-8", "replace") or None


def _joined(letters: str) -> str | None:
    """Return letters of base64 without their line ends; None where there are others among them."""
    bare = letters.strip()
    left = bare.encode("ascii", "replace").translate(None, _LETTERS)  # quicker than a pattern, for megabytes
    if not left:
        return bare
    return None if left.strip() or b" " in left else "".join(letters.split())


def sentence_in(name: str) -> str:
    """Return the words that a name or an address spells, when they are enough English ones for a sentence; else ""."""
    spelled = [found.lower() for found in _SPELLED.findall(unquote(_HOST.sub("", name, count=1)))]
    text = " ".join(spelled)
    known = sum(map(words.known, spelled[: words.MAX_COUNTED]))
    return text if known >= SENTENCE_WORDS and words.share(text) >= SENTENCE_SHARE else ""


def words_in(data: bytes) -> str:
    """Return the sentences between the bytes of a file (its comments, titles, text chunks), one a line.

    Of a larger file its two ends are read, where formats keep them.
    """
    ends = (data,) if len(data) <= 2 * SCANNED_BYTES else (data[:SCANNED_BYTES], data[-SCANNED_BYTES:])
    runs = [run.decode("ascii") for end in ends for run in _RUN.findall(end) if b" " in run or b"_" in run]
    return "\n".join(run.strip() for run in dict.fromkeys(runs) if sentence_in(run))


def unpacked_head(packed: str) -> bytes | None:
    """Return the first bytes that base64 stands for; None where it is none."""
    return _unpacked(packed[: _PACKED_CHARS if len(packed) > _PACKED_CHARS else None])


def _unpacked(packed: str) -> bytes | None:
    plain = packed.rstrip("=").translate(_ONE_ALPHABET)
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _window_reads(raw: bytes) -> bool:
    size = len(raw)
    if len(set(raw)) < _FEW_LETTERS:
        return False
    small = size - len(raw.translate(None, _LOWER))
    capital = size - len(raw.translate(None, _UPPER))
    separated = raw.count(b"_") + raw.count(b"-")
    shouted = capital > _CAPITAL * size and raw.count(b"A") < _ZEROS * size
    return small > _SMALL * size or separated > _SEPARATED * size or shouted
