"""Takes looks at a file: the picture itself, or frames of an animation or film, as RGB for those who judge content.

Decides which frames: the first, one whenever so much time has passed, and one whenever the scene has changed (colours
or places of light differ from the last frame that was looked at), up to a number. Half of that number is kept for
frames by time. A film too long to be decoded whole is looked at by its key frames; where those lie too far apart it is
refused rather than half seen. What shows through transparency is looked at on white and on black, and what lies under
clear pixels bare. Each look is written as soon as it is there. Run by `zygote` in the limited child.
"""

import dataclasses
import io
import itertools
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from PIL import ExifTags, Image, ImageChops, ImageStat

from forestay.media.limits import DecodeLimits, Kind, Looking
from forestay.media.opening import films, pictures
from forestay.media.opening.measured import Measuring
from forestay.media.opening.refusal import Refusal, Walked, broken, check_size, unsupported

HEAD = struct.Struct("!IIdBB")  # width, height, seconds, ground, 1 where the file moves
GROUNDS = ("", "white", "black", "nothing")
_EXIF_BYTES = 1024 * 1024  # at the end of a file: larger Exif data are refused by its reader
_CLEAR = 128  # of 255: pixels that show less of themselves than of what lies below
_PLAIN_SPREAD = 2.0  # of 255, standard deviation: what lies under clear pixels is one colour
_SMALL = (32, 32)
_BINS = 16  # of each colour
_OTHER_COLOURS = 0.25  # share of pixels in other bins, from which a scene is another
_OTHER_LIGHT = 30.0  # of 255, mean difference of the small pictures
_FRAME_MILLISECONDS = 100  # of a frame that does not say how long it is shown
_WHOLE_PIXELS = 1_500_000_000  # of a film that is decoded whole: forty seconds of 1080p


def run(
    source: BinaryIO,
    out: BinaryIO,
    kind: Kind | None,
    limits: DecodeLimits,
    looking: Looking,
    unmapped: Callable[[], None],
) -> dict[str, object]:
    """Write looks to `out`, each a head and its RGB; returns what is known of the file. Refusal otherwise."""
    walked = pictures_walked(source, kind, limits)
    unmapped()
    if looking.most and walked.kind != "image" and (track := films.unseen_in(source, walked, limits)):
        raise unsupported(f"the file has {track}, at which nobody looks")
    measuring = Measuring(source, walked, limits) if looking.measure else None
    if walked.kind == "audio":
        return _told(walked, 0.0, 0, 0) | (measuring.told() if measuring else {})
    chosen = _Chosen(looking)
    if walked.kind == "image":
        frames = _still(source, walked, looking) if walked.frames == 1 else _animated(source, walked, limits, chosen)
    else:
        frames = _film(source, walked, limits, chosen, measuring)
    moves = walked.kind == "video" or walked.frames > 1
    seen, seconds = 0, 0.0
    for seconds, image in frames:
        seen += 1
        if measuring:
            measuring.take([flat for ground, flat in _flattened(image) if ground != GROUNDS[3]], seconds)
        if looking.most and chosen.takes(image, seconds):
            _show(out, image, seconds, looking.long_side if moves else 0)
    small = _thumbnail(source, walked, limits) if looking.most and not moves else None
    if small is not None and chosen.takes(small, 0.0):  # another picture than the one that it should be
        _show(out, small, 0.0, 0)
    if not seen:
        raise broken("there is no picture")
    return _told(walked, seconds, seen, chosen.missed) | (measuring.told() if measuring else {})


def _show(out: BinaryIO, image: Image.Image, seconds: float, long_side: int) -> None:
    """Write a picture's looks; of something that moves no larger than `long_side`, which is 0 for all else."""
    for ground, flat in _flattened(image):
        sized = _within(flat, long_side) if long_side else flat
        out.write(HEAD.pack(sized.width, sized.height, seconds, GROUNDS.index(ground), bool(long_side)))
        out.write(sized.tobytes())
        out.flush()


def _thumbnail(source: BinaryIO, walked: Walked, limits: DecodeLimits) -> Image.Image | None:
    """Return the small picture that lies in a picture's Exif data (CIPA DC-008, 4.5.5), where there is one."""
    if walked.codec == "TIFF":
        return None
    source.seek(0)
    with pictures.decoding():
        image = Image.open(source, formats=[walked.codec])
        if "exif" not in image.info:  # PNG may name it behind the picture: decoded once more only where it does
            if walked.codec != "PNG" or b"eXIf" not in _end_of(source):
                return None
            image.load()
        inner = image.getexif().get_ifd(ExifTags.IFD.IFD1)
        start, size = inner.get(ExifTags.Base.JpegIFOffset), inner.get(ExifTags.Base.JpegIFByteCount)
        whole = cast("bytes", image.info.get("exif", b"")).removeprefix(b"Exif\0\0")
        if not isinstance(start, int) or not isinstance(size, int) or not 0 < size <= len(whole) - start:
            return None
        small = Image.open(io.BytesIO(whole[start : start + size]), formats=["JPEG"])
        check_size(small.width, small.height, limits)
        small.load()
        return small


def _end_of(source: BinaryIO) -> bytes:
    place = source.tell()
    source.seek(max(0, source.seek(0, os.SEEK_END) - _EXIF_BYTES))
    end = source.read()
    source.seek(place)
    return end


def pictures_walked(source: BinaryIO, kind: Kind | None, limits: DecodeLimits) -> Walked:
    """Read the file's structure under the limits, as for any file that is opened."""
    from forestay.media.opening import job  # noqa: PLC0415 - it imports this module's neighbours in turn

    if not os.fstat(source.fileno()).st_size:
        raise broken("the file is empty")
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return job.walked(view, kind, limits)


class _Chosen:
    """Which frames are looked at."""

    def __init__(self, looking: Looking) -> None:
        self.every_seconds = looking.every_seconds
        self._left = looking.most
        self._scenes_left = looking.most // 2
        self._last: Image.Image | None = None
        self._last_seconds = 0.0
        self.missed = 0  # changes of scene that were not looked at any more

    def spread(self, seconds: float) -> None:
        """Take longer steps through something so long that the looks by time would not reach its end."""
        self.every_seconds = max(self.every_seconds, seconds / max(1, self._left - self._scenes_left - 1))

    def takes(self, image: Image.Image, seconds: float) -> bool:
        """Tell whether this frame is looked at, and remember it if so."""
        small = image.convert("RGB").resize(_SMALL, Image.Resampling.BOX)
        due = self._last is None or seconds - self._last_seconds >= self.every_seconds
        scene = not due and self._last is not None and differs(self._last, small)
        if not due and not scene:
            return False
        if not self._left or (scene and not self._scenes_left):
            self.missed += 1
            return False
        self._left -= 1
        self._scenes_left -= scene
        self._last, self._last_seconds = small, seconds
        return True


def differs(one: Image.Image, other: Image.Image) -> bool:
    """Tell whether two small pictures show different scenes, by their colours or by where light is."""
    count = one.width * one.height
    moved = sum(abs(a - b) for a, b in zip(_colours(one), _colours(other), strict=True)) / (2 * 3 * count)
    if moved >= _OTHER_COLOURS:
        return True
    light: list[float] = ImageStat.Stat(ImageChops.difference(one.convert("L"), other.convert("L"))).mean
    return light[0] >= _OTHER_LIGHT


def _colours(image: Image.Image) -> list[int]:
    counts = image.histogram()
    width = 256 // _BINS
    return [sum(counts[start : start + width]) for start in range(0, len(counts), width)]


def _still(source: BinaryIO, walked: Walked, looking: Looking) -> Iterator[tuple[float, Image.Image]]:
    source.seek(0)
    with pictures.decoding():
        image = Image.open(source, formats=[walked.codec])
        _check_size(image, walked)
        if walked.codec == "JPEG" and image.width * image.height > looking.most_pixels:
            image.draft("RGB", (image.width // 2, image.height // 2))
        image.load()
        image = _reduced(_eight_bits(image), looking.most_pixels)
        yield 0.0, pictures.upright(image, walked.orientation)


def _animated(
    source: BinaryIO, walked: Walked, limits: DecodeLimits, chosen: _Chosen
) -> Iterator[tuple[float, Image.Image]]:
    """Yield the frames of an animation, or the pages of a TIFF one second apart."""
    source.seek(0)
    with pictures.decoding():
        image = Image.open(source, formats=[walked.codec])
        _check_size(image, walked)
        seconds = 0.0
        for index in range(min(walked.frames, limits.max_frames)):
            image.seek(index)
            image.load()
            yield seconds, _eight_bits(image)
            shown = 1.0 if walked.codec == "TIFF" else _shown_seconds(image)
            if not index:
                chosen.spread(shown * walked.frames)
            seconds += shown


def _shown_seconds(image: Image.Image) -> float:
    milliseconds: object = image.info.get("duration")
    known = isinstance(milliseconds, int | float) and milliseconds > 0
    return cast("float", milliseconds if known else _FRAME_MILLISECONDS) / 1000


def _film(
    source: BinaryIO, walked: Walked, limits: DecodeLimits, chosen: _Chosen, measuring: Measuring | None
) -> Iterator[tuple[float, Image.Image]]:
    """Yield a film's frames, or its key frames when it is too long for all; Refusal when they lie too far apart."""
    played = films.length_of(source, walked, limits)
    whole = played.pictures * played.pixels <= _WHOLE_PIXELS
    damage = measuring.shows(played, whole=whole) if measuring else None
    apart = max(chosen.every_seconds * 2, 1.0)
    chosen.spread(played.seconds)
    before = 0.0
    for seconds, image in films.frames(source, walked, limits, key_frames=not whole, damage=damage):
        if not whole and seconds - before > apart:
            raise _too_far(seconds - before, apart)
        before = seconds
        yield seconds, image
    if not whole and played.seconds - before > apart:
        raise _too_far(played.seconds - before, apart)


def _too_far(gap: float, allowed: float) -> Refusal:
    message = f"the film is too long to be seen whole, and its key frames lie {gap:.0f} seconds apart"
    return Refusal("too_heavy", message, "max_seconds", allowed=allowed, given=gap)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of deeper samples as grey of eight bits; Pillow's own conversion would cut it off at white."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in {"I", "F"}:
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255.0 / ((high - low) or 1.0)  # what its numbers stand for, nobody says: all of it is shown
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L")
    return image


def _check_size(image: Image.Image, walked: Walked) -> None:
    if walked.codec != "TIFF" and image.size != (walked.width, walked.height):
        raise broken(f"the decoder sees {image.size[0]} x {image.size[1]} pixels, the header says otherwise")


def _flattened(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield the picture as it is seen: on white and on black where something shows through."""
    if not image.has_transparency_data:
        yield "", image.convert("RGB")
        return
    layered = image.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    if lowest == 255:
        yield "", layered.convert("RGB")
        return
    for ground in GROUNDS[1:3]:
        flat = Image.new("RGB", layered.size, ground)
        flat.paste(layered, mask=layered.getchannel("A"))
        yield ground, flat
    bare = layered.convert("RGB")  # as whoever drops transparency sees it
    clear = layered.getchannel("A").point([255] * _CLEAR + [0] * (256 - _CLEAR))
    if clear.getbbox() is not None and max(ImageStat.Stat(bare, clear).stddev) > _PLAIN_SPREAD:
        yield GROUNDS[3], bare


def _reduced(image: Image.Image, most_pixels: int) -> Image.Image:
    """Return the picture, by a whole factor smaller when it has too many pixels."""
    factor = next(size for size in itertools.count(1) if image.width * image.height <= most_pixels * size * size)
    return image if factor == 1 else image.convert(_plain(image)).reduce(factor)


def _plain(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data else "RGB"


def _within(image: Image.Image, long_side: int) -> Image.Image:
    if max(image.size) > long_side:
        image.thumbnail((long_side, long_side), Image.Resampling.BILINEAR)
    return image


def _told(walked: Walked, seconds: float, frames: int, missed: int) -> dict[str, object]:
    told = dataclasses.asdict(walked)
    kept = {name: told[name] for name in ("kind", "content_type", "width", "height")}
    return {**kept, "frames": frames, "seconds": seconds, "missed": missed}
