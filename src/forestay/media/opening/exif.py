"""Reads one thing from Exif data: which way up the picture is. Everything else of it is dropped unread.

Exif is a TIFF in miniature (https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf): only the first
directory is looked at, nothing is followed. Used by the readers of JPEG, PNG and WebP.
"""

_ORIENTATION = 0x0112
_SHORT = 3
_MAX_ENTRIES = 512


def orientation_of(data: bytes) -> int:
    """Return the orientation 1 to 8 that a TIFF block says; 1 when it says nothing readable."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "little", b"MM": "big"}.get(data[:2])
    if order not in {"little", "big"} or len(data) < 8:
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], "little" if order == "little" else "big")

    first = number(4, 4)
    for index in range(min(number(first, 2), _MAX_ENTRIES)):
        entry = first + 2 + 12 * index
        if entry + 12 > len(data):
            return 1
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if number(entry + 2, 2) == _SHORT and 1 <= value <= 8 else 1
    return 1
