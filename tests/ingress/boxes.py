"""Small writers of file formats, so that tests can write files which no honest program would.

Each follows the format's own document and nothing more; `av` and Pillow write the honest files.
"""

import struct
import zlib
from collections.abc import Sequence

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """Write a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Write a PNG header."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes, width: int = 4, height: int = 4) -> bytes:
    """Write an RGB picture of nothing with `chunks` before its data."""
    data = zlib.compress((b"\0" + bytes(3 * width)) * height)
    return PNG + ihdr(width, height) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND")


def fctl(width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    """Write the control chunk of one frame."""
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, left, top, 1, 10, 0, 0))


def segment(marker: int, body: bytes = b"") -> bytes:
    """Write a JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def sof(width: int, height: int, marker: int = 0xC0, precision: int = 8) -> bytes:
    """Write a JPEG frame header of one component."""
    return segment(marker, struct.pack(">BHHB", precision, height, width, 1) + b"\1\x11\0")


SOS = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\x34"


def jpeg(*segments: bytes) -> bytes:
    """Write a JPEG of these segments."""
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def gif(width: int, height: int, *blocks: bytes, trailer: bytes = b"\x3b") -> bytes:
    """Write a GIF without a global table."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"".join(blocks) + trailer


def gif_frame(width: int = 1, height: int = 1, left: int = 0, top: int = 0, code_size: int = 2) -> bytes:
    """Write a frame of black pixels with a table of four."""
    head = b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0x81) + bytes(12)
    return head + bytes([code_size]) + b"\2\x44\1\0"  # clear, 0, end


def riff(kind: bytes, *chunks: bytes, size: int | None = None) -> bytes:
    """Write a RIFF file."""
    body = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def riff_chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """Write a RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) & 1)


def three(number: int) -> bytes:
    """Write a number in three bytes, the lowest first."""
    return number.to_bytes(3, "little")


def vp8x(width: int, height: int, flags: int = 2) -> bytes:
    """Write the canvas of an extended WebP."""
    return riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1) + three(height - 1))


def vp8l(width: int, height: int) -> bytes:
    """Write a lossless picture that ends after its header."""
    return riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | (height - 1) << 14) + bytes(8))


def anmf(width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    """Write a frame of an animated WebP."""
    head = three(left // 2) + three(top // 2) + three(width - 1) + three(height - 1) + three(10) + b"\0"
    return riff_chunk(b"ANMF", head + vp8l(width, height))


Tag = tuple[int, int, Sequence[int]]  # number, type (3 short, 4 long), values


def tiff(pages: Sequence[Sequence[Tag]], data: bytes = bytes(64), last: int = 0) -> bytes:
    """Write a TIFF whose pages share `data` at offset 8; `last` is where the last page says the next one is."""
    made = bytearray(b"II*\0\0\0\0\0" + data)
    link = 4
    for page in pages:
        entries, extra = b"", b""
        start = len(made)
        after = start + 2 + 12 * len(page) + 4
        for number, kind, values in page:
            packed = b"".join(struct.pack("<H" if kind == 3 else "<I", value) for value in values)
            if len(packed) <= 4:
                entries += struct.pack("<HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
            else:
                entries += struct.pack("<HHII", number, kind, len(values), after + len(extra))
                extra += packed
        made[link : link + 4] = struct.pack("<I", start)
        made += struct.pack("<H", len(page)) + entries
        link = len(made)
        made += bytes(4) + extra
    made[link : link + 4] = struct.pack("<I", last)
    return bytes(made)


def tiff_page(width: int, height: int, *more: Tag, strips: int = 1, count: int = 64, offset: int = 8) -> list[Tag]:
    """Write a grey page in deflate, of strips that all start at `offset`."""
    tags: list[Tag] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8]),
        (259, 3, [8]),
        (262, 3, [1]),
        (273, 4, [offset] * strips),
        (277, 3, [1]),
        (278, 4, [-(-height // strips)]),
        (279, 4, [count] * strips),
    ]
    named = {tag[0] for tag in more}
    return sorted([*[tag for tag in tags if tag[0] not in named], *more])


def box(name: bytes, *parts: bytes, size: int | None = None) -> bytes:
    """Write a box of an MP4 film."""
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8 if size is None else size) + name + body


FTYP = box(b"ftyp", b"isom\0\0\0\0isommp42")


def mvhd(scale: int = 1000, duration: int = 1000) -> bytes:
    """Write the header of a film."""
    return box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, scale, duration), bytes(80))


def track(*tables: bytes, handler: bytes = b"vide", scale: int = 1000, duration: int = 1000) -> bytes:
    """Write a track with these tables."""
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, scale, duration, 0)),
        box(b"hdlr", bytes(8), handler, bytes(13)),
        box(b"minf", box(b"stbl", *tables)),
    )
    return box(b"trak", media)


def stsd(entry: bytes) -> bytes:
    """Write a table of one sample description."""
    return box(b"stsd", bytes(4), struct.pack(">I", 1), entry)


def picture_entry(width: int = 64, height: int = 64, name: bytes = b"avc1") -> bytes:
    """Write the sample description of a picture track."""
    return box(name, bytes(24), struct.pack(">HH", width, height), bytes(50))


def sound_entry(channels: int = 2, rate: int = 48_000, name: bytes = b"mp4a") -> bytes:
    """Write the sample description of a sound track."""
    return box(name, bytes(16), struct.pack(">HHI", channels, 16, 0), struct.pack(">I", rate << 16))


def film(*parts: bytes) -> bytes:
    """Write a film with these boxes in its moov."""
    return FTYP + box(b"moov", *parts) + box(b"mdat", bytes(64))


def element(name: int, body: bytes = b"", size: int | None = None) -> bytes:
    """Write an element of a Matroska film; the size takes eight bytes."""
    told = len(body) if size is None else size
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (told | 1 << 56).to_bytes(8, "big") + body


def number(name: int, value: int) -> bytes:
    """Write an element that holds an unsigned number."""
    return element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def matroska(*parts: bytes, doc_type: bytes = b"webm") -> bytes:
    """Write a film with these elements in its segment."""
    head = element(0x1A45DFA3, number(0x4286, 1) + number(0x42F7, 1) + element(0x4282, doc_type) + number(0x4287, 2))
    return head + element(0x18538067, b"".join(parts))


def picture_track(width: int = 64, height: int = 64, codec: bytes = b"V_VP9", *more: bytes) -> bytes:
    """Write the entry of a picture track."""
    body = number(0xD7, 1) + number(0x73C5, 1) + number(0x83, 1) + element(0x86, codec)
    return element(0xAE, body + element(0xE0, number(0xB0, width) + number(0xBA, height)) + b"".join(more))


def sound_track(rate: float = 48_000.0, channels: int = 2) -> bytes:
    """Write the entry of a sound track."""
    body = number(0xD7, 2) + number(0x73C5, 2) + number(0x83, 2) + element(0x86, b"A_OPUS")
    return element(0xAE, body + element(0xE1, element(0xB5, struct.pack(">d", rate)) + number(0x9F, channels)))


def wav_format(tag: int = 1, channels: int = 1, rate: int = 8000, depth: int = 16, block: int | None = None) -> bytes:
    """Write the format of a WAV file."""
    size = channels * depth // 8 if block is None else block
    return riff_chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * size & 0xFFFFFFFF, size, depth))


def flac(samples: int = 0, rate: int = 48_000, frames: bytes = b"", more: bytes = b"", channels: int = 1) -> bytes:
    """Write a FLAC stream of 16 bits; `more` are further blocks of metadata."""
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36 | samples
    described = struct.pack(">HH", 65_535, 65_535) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + bytes([0 if more else 0x80]) + three_big(34) + described + more + frames


def three_big(value: int) -> bytes:
    """Write a number in three bytes, the highest first."""
    return value.to_bytes(3, "big")


def flac_frames(count: int) -> bytes:
    """Write frames of 65,535 equal samples each, in a handful of bytes (RFC 9639, section 9)."""
    made: list[bytes] = []
    for index in range(count):
        head = b"\xff\xf8\x7a\x08" + chr(index).encode("utf-8", "surrogatepass") + struct.pack(">H", 65_534)
        head += bytes([_crc(head, 0x07, 8)])
        body = head + b"\0" + b"\0\0"  # a constant subframe of value 0
        made.append(body + struct.pack(">H", _crc(body, 0x8005, 16)))
    return b"".join(made)


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    value, top, mask = 0, 1 << bits - 1, (1 << bits) - 1
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
    return value


def mp3(frames: int, head: bytes = b"\xff\xf3\x14\xc0") -> bytes:
    """Write silent frames of MPEG 2, layer III, 8 kbit/s at 24 kHz: 24 ms in 24 bytes."""
    return (head + bytes(20)) * frames


def id3(size: int, body: bytes = b"") -> bytes:
    """Write a tag that says it has `size` bytes."""
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + body


def ogg_page(body: bytes, granule: int = 0, serial: int = 1, flags: int = 2, segments: bytes | None = None) -> bytes:
    """Write an Ogg page; its checksum is left out."""
    table = bytes([255] * (len(body) // 255) + [len(body) % 255]) if segments is None else segments
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, 0, 0)
    return head + bytes([len(table)]) + table + body


def opus_head(channels: int = 2) -> bytes:
    """Write the first packet of an Opus stream."""
    return struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, 312, 48_000, 0, 0)
