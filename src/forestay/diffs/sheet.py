"""Contact sheets: what control, control again and candidate made of the same request, side by side, as a PNG."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.uint8]

TILE = 128  # pixels
MOST_ROWS = 12
_GAP, _CAPTION = 6, 14
_TITLES = ("control", "control again", "candidate", "difference x4")
_INK, _PAPER = (32, 32, 36), (250, 250, 248)


@dataclasses.dataclass(frozen=True, slots=True)
class SheetRow:
    """One request. None where there was no picture."""

    caption: str
    control: Picture | None
    again: Picture | None
    candidate: Picture | None


def draw_sheet(rows: Sequence[SheetRow]) -> bytes:
    """Return a PNG of the first rows, at most 12; the last column shows four times the difference of outer ones."""
    shown = rows[:MOST_ROWS]
    width = _GAP + len(_TITLES) * (TILE + _GAP)
    height = _CAPTION + _GAP + len(shown) * (TILE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, max(height, _CAPTION + _GAP)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(_TITLES):
        pen.text((_GAP + column * (TILE + _GAP), 2), title, fill=_INK)
    for number, row in enumerate(shown):
        top = _CAPTION + _GAP + number * (TILE + _CAPTION + _GAP)
        pen.text((_GAP, top), row.caption[:90], fill=_INK)
        tiles = [_tile(row.control), _tile(row.again), _tile(row.candidate), _difference(row)]
        for column, tile in enumerate(tiles):
            if tile is not None:
                sheet.paste(tile, (_GAP + column * (TILE + _GAP), top + _CAPTION))
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _tile(picture: Picture | None) -> Image.Image | None:
    if picture is None or picture.size == 0:
        return None
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    image.thumbnail((TILE, TILE), Image.Resampling.BOX)
    return image if max(image.size) == TILE else image.resize((TILE, TILE), Image.Resampling.NEAREST)


def _difference(row: SheetRow) -> Image.Image | None:
    one, other = _tile(row.control), _tile(row.candidate)
    if one is None or other is None or one.size != other.size:
        return None
    gap = np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)) * 4
    return Image.fromarray(np.clip(gap, 0, 255).astype(np.uint8))
