"""Faults of media, to be put into healthy files on purpose: what broken pipelines make of pictures, films and sound.

Each names its row of the catalogue of failures of generative pipelines, and the way in which it can be seen: by a rule
on one output, or by features of many. Pure: arrays in, arrays out, drawn from the generator that is handed in. Faults
of pipelines (weights, schedulers, adapters) need the pipeline and are not here. For tests and game days.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from forestay.fleet.spec_quality import OutputCheck

Picture = npt.NDArray[np.uint8]  # [height, width, 3]
Film = npt.NDArray[np.uint8]  # [frames, height, width, 3]
Sound = npt.NDArray[np.float32]  # [samples], full scale 1
Chance = np.random.Generator


@dataclasses.dataclass(frozen=True, slots=True)
class PictureFault:
    """A fault of one picture. `check` None: one output does not show it, the named feature of many does."""

    name: str
    row: int  # of the catalogue
    inject: Callable[[Picture, Chance], Picture]
    check: OutputCheck | None = None
    feature: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class FilmFault:
    """A fault of the frames of a film."""

    name: str
    row: int
    inject: Callable[[Film, Chance], Film]
    check: OutputCheck | None = None
    feature: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class SoundFault:
    """A fault of a recording."""

    name: str
    row: int
    inject: Callable[[Sound, Chance], Sound]
    check: OutputCheck | None = None
    feature: str = ""


def _black(picture: Picture, chance: Chance) -> Picture:
    del chance
    return np.zeros_like(picture)


def _noise(picture: Picture, chance: Chance) -> Picture:
    return chance.integers(0, 256, picture.shape, dtype=np.uint8)


def _checkerboard(picture: Picture, chance: Chance) -> Picture:
    del chance
    down, across = np.indices(picture.shape[:2])
    return _shifted(picture, np.where((down + across) % 2, 14, -14)[..., None])


def _seams(picture: Picture, chance: Chance) -> Picture:
    """Give each tile of a decoder that works in tiles a level of its own."""
    height, width = picture.shape[:2]
    levels = chance.integers(-22, 23, (height // 32 + 1, width // 32 + 1))
    return _shifted(picture, np.repeat(np.repeat(levels, 32, 0), 32, 1)[:height, :width, None])


def _swapped(picture: Picture, chance: Chance) -> Picture:
    del chance
    return np.ascontiguousarray(picture[:, :, ::-1])


def _dotted(picture: Picture, chance: Chance) -> Picture:
    made = picture.copy()
    spots = chance.random(picture.shape[:2]) < 0.004
    made[spots] = 255 - made[spots] // 4
    return made


def _burnt(picture: Picture, chance: Chance) -> Picture:
    del chance
    return np.clip((picture.astype(np.float32) - 128) * 300 + 128, 0, 255).astype(np.uint8)


def _fishnet(picture: Picture, chance: Chance) -> Picture:
    del chance
    down, across = np.indices(picture.shape[:2])
    return _shifted(picture, np.where((down % 8 == 0) | (across % 8 == 0), -28, 0)[..., None])


def _soft(picture: Picture, chance: Chance) -> Picture:
    """Halve the picture and enlarge it again, as a silent fall-back to a smaller model does."""
    del chance
    height, width = picture.shape[0] // 4 * 4, picture.shape[1] // 4 * 4
    small = picture[:height, :width].reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3))
    return np.repeat(np.repeat(small, 4, 0), 4, 1).astype(np.uint8)


def _striped(picture: Picture, chance: Chance) -> Picture:
    return _shifted(picture, chance.integers(-20, 21, (picture.shape[0], 1, 1)))


def _washed_out(picture: Picture, chance: Chance) -> Picture:
    del chance
    return (picture.astype(np.float32) * 0.35 + 110).astype(np.uint8)


def _shifted(picture: Picture, levels: npt.NDArray[np.int64]) -> Picture:
    return np.clip(picture.astype(np.int64) + levels, 0, 255).astype(np.uint8)


def _frozen(film: Film, chance: Chance) -> Film:
    del chance
    made = film.copy()
    made[len(film) // 8 :] = film[len(film) // 8]
    return made


def _torn(film: Film, chance: Chance) -> Film:
    made = film.copy()
    place = int(chance.integers(len(film) // 3, 2 * len(film) // 3))
    line = film.shape[1] // 2
    made[place, :line], made[place, line:] = film[place - 1, :line], 255 - film[place - 1, line:]
    return made


def _blank(film: Film, chance: Chance) -> Film:
    del chance
    return np.zeros_like(film)


def _unconnected(film: Film, chance: Chance) -> Film:
    """Shuffle the pixels of each frame: a film that is noise."""
    flat = film.reshape(len(film), -1, 3)
    return np.stack([frame[chance.permutation(len(frame))] for frame in flat]).reshape(film.shape)


def _silent(sound: Sound, chance: Chance) -> Sound:
    del chance
    return np.zeros_like(sound)


def _one_value(sound: Sound, chance: Chance) -> Sound:
    del chance
    return np.full_like(sound, -1.0)


def _no_numbers(sound: Sound, chance: Chance) -> Sound:
    made = sound.copy()
    made[int(chance.integers(len(sound) // 4, len(sound) // 2)) :] = np.nan
    return made


def _too_loud(sound: Sound, chance: Chance) -> Sound:
    del chance
    return np.clip(sound * 8, -1, 1).astype(np.float32)


def _hiss(sound: Sound, chance: Chance) -> Sound:
    return (sound * 0.2 + 0.3 * chance.standard_normal(len(sound))).clip(-1, 1).astype(np.float32)


def _clicks(sound: Sound, chance: Chance) -> Sound:
    made = sound.copy()
    made[chance.integers(0, len(sound), 40)] = 0.95
    return made


PICTURES = (
    PictureFault("black", 1, _black, OutputCheck.BLACK),
    PictureFault("noise", 6, _noise, feature="fine_share"),
    PictureFault("checkerboard", 7, _checkerboard, feature="checker"),
    PictureFault("washed out", 15, _washed_out, feature="spread"),
    PictureFault("tile seams", 17, _seams, feature="row_stripes"),
    PictureFault("red and blue swapped", 18, _swapped, feature="yellow_blue"),
    PictureFault("dots", 19, _dotted, feature="dots"),
    PictureFault("burnt", 30, _burnt, OutputCheck.CLIPPED),
    PictureFault("fishnet", 31, _fishnet, feature="blockiness"),
    PictureFault("resampled", 36, _soft, feature="blockiness"),
    PictureFault("stripes", 37, _striped, feature="row_stripes"),
)
FILMS = (
    FilmFault("noise", 38, _unconnected, feature="steadiness"),
    FilmFault("torn", 39, _torn, OutputCheck.TORN),
    FilmFault("frozen", 40, _frozen, OutputCheck.FROZEN),
    FilmFault("black", 1, _blank, OutputCheck.CONSTANT),
)
SOUNDS = (
    SoundFault("silent", 42, _silent, OutputCheck.SILENT),
    SoundFault("one value", 42, _one_value, OutputCheck.SILENT),
    SoundFault("no numbers", 42, _no_numbers, OutputCheck.NOT_A_NUMBER),
    SoundFault("too loud", 43, _too_loud, OutputCheck.SOUND_CLIPPED),
    SoundFault("hiss", 43, _hiss, feature="flatness"),
    SoundFault("clicks", 43, _clicks, feature="clicks"),
)
