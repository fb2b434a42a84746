"""Whether an output is whole: one row for each check that could be made, with the numbers that it rests on. Pure.

It decides pass or fail of each check by the thresholds of the model's spec; what follows is `quality/decide`. A picture
that the model's own filter blanked is `filtered`, not broken: the answer says so, and the caller can read it. A check
of something that was not asked for, or that the file cannot show, has no row. Called by the worker before success.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Sequence

from forestay.fleet.spec_quality import OutputCheck, QualitySpec, Thresholds
from forestay.media.measures import FilmMeasures, Measured, PictureMeasures, SoundMeasures
from forestay.quality.asked import Asked, Served

_DRAWN = 3.0  # levels of colourfulness, below which a picture has none


class Standing(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    FILTERED = "filtered"  # it would fail, but the model says that its own filter made it so


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One check at one place of the answer. `found` and `limit` are in the unit that `words` name."""

    check: OutputCheck
    where: str  # "images[0].url"; empty: of the answer as a whole
    standing: Standing
    found: float
    limit: float
    words: str  # a sentence without prompts: "every value of the picture lies between 0 and 2"

    @property
    def failed(self) -> bool:
        """Tell whether the output is broken by it."""
        return self.standing is Standing.FAILED


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """One file of an answer after it was opened; `measured` None: it does not open, for the reason in `fault`."""

    where: str
    index: int | None  # its place in the answer's list of files
    measured: Measured | None
    fault: str = ""
    declared: str = ""  # the content type that the answer gives it; empty: none
    content: int = 0  # keyed digest of its bytes; 0: not taken


def check_output(files: Sequence[File], asked: Asked, served: Served, spec: QualitySpec) -> list[Row]:
    """Return every row, the failed ones in the order of `OutputCheck`."""
    rows = [*_of_answer(asked, served)]
    for file in files:
        rows += _of_file(file, asked, served, spec.thresholds)
    order = list(OutputCheck)
    kept = (row for row in rows if row.check not in spec.skip)
    return sorted(kept, key=lambda row: (not row.failed, order.index(row.check)))


def _row(check: OutputCheck, where: str, *, ok: bool, found: float, limit: float, words: str) -> Row:
    return Row(check, where, Standing.PASSED if ok else Standing.FAILED, found, limit, words)


def _of_answer(asked: Asked, served: Served) -> Iterator[Row]:
    if asked.count is not None and served.count is not None and not any(served.filtered):
        words = f"{served.count} files, {asked.count} were asked for"
        ok = served.count == asked.count
        yield _row(OutputCheck.COUNT, "", ok=ok, found=served.count, limit=asked.count, words=words)
    if asked.steps is not None and served.steps is not None:
        words = f"{served.steps} steps, {asked.steps} were asked for"
        ok = served.steps >= asked.steps
        yield _row(OutputCheck.STEPS, "", ok=ok, found=served.steps, limit=asked.steps, words=words)


def _of_file(file: File, asked: Asked, served: Served, limits: Thresholds) -> Iterable[Row]:
    found = file.measured
    words = "the file opens" if found is not None else f"the file does not open: {file.fault}"
    yield _row(OutputCheck.DECODES, file.where, ok=found is not None, found=float(found is not None), limit=1.0,
               words=words)  # fmt: skip
    if found is None:
        return
    yield from _formats(file, found, asked)
    filtered = served.is_filtered(file.index)
    if found.picture is not None:
        yield from _sizes(file.where, found.picture, asked, limits)
        if found.film is None:
            yield from (_unless(filtered, row) for row in _picture(file.where, found.picture, limits))
    if found.film is not None:
        yield from (_unless(filtered, row) for row in _film(file.where, found.film, asked, limits))
    if found.sound is not None:
        yield from _sound(file.where, found.sound, found.film, limits)
    if found.kind == "audio" and found.sound is not None and asked.seconds is not None:
        yield _duration(file.where, found.sound.seconds, asked.seconds, limits)


def _unless(filtered: bool, row: Row) -> Row:
    return dataclasses.replace(row, standing=Standing.FILTERED) if filtered and row.failed else row


def _formats(file: File, found: Measured, asked: Asked) -> Iterator[Row]:
    """Compare the bytes with what was asked for and with what the answer says; a wildcard says nothing."""
    wanted = asked.content_types
    if wanted and any(kind.startswith(f"{found.kind}/") for kind in wanted):
        ok = found.content_type in wanted
        words = f"the file is {found.content_type}, {' or '.join(sorted(wanted))} was asked for"
        yield _row(OutputCheck.FORMAT, file.where, ok=ok, found=float(ok), limit=1.0, words=words)
    kind = file.declared.partition("/")[0]
    if kind in {"image", "video", "audio"} and "*" not in file.declared:
        moves = found.film is not None  # an animated picture may be called either
        ok = kind == found.kind or (moves and kind in {"image", "video"})
        words = f"the file is {found.content_type}, the answer says {file.declared}"
        yield _row(OutputCheck.FORMAT, file.where, ok=ok, found=float(ok), limit=1.0, words=words)


def _sizes(where: str, picture: PictureMeasures, asked: Asked, limits: Thresholds) -> Iterator[Row]:
    if asked.size is None:
        return
    off = max(abs(picture.width - asked.size[0]), abs(picture.height - asked.size[1]))
    words = f"{picture.width} x {picture.height} pixels, {asked.size[0]} x {asked.size[1]} were asked for"
    slack = min(limits.size_slack_pixels, max(1, min(asked.size) // 4))  # a quarter of a small picture is no rounding
    yield _row(OutputCheck.SIZE, where, ok=off <= slack, found=off, limit=slack, words=words)


def _picture(where: str, picture: PictureMeasures, limits: Thresholds) -> Iterator[Row]:
    words = f"every value of the picture lies between {picture.low} and {picture.high} of 255"
    black = picture.high <= limits.black_level
    yield _row(OutputCheck.BLACK, where, ok=not black, found=picture.high, limit=limits.black_level, words=words)
    constant = not black and picture.extent <= limits.constant_range
    yield _row(OutputCheck.CONSTANT, where, ok=not constant, found=picture.extent, limit=limits.constant_range,
               words=f"no channel of the picture varies by more than {picture.extent} of 255")  # fmt: skip
    words = f"{picture.clipped_share:.1%} of the picture's values are 0 or 255"
    drawn = picture.colour < _DRAWN  # black on white, as drawings, codes and masks are
    ok = picture.clipped_share < limits.clipped_share or black or constant or drawn
    yield _row(OutputCheck.CLIPPED, where, ok=ok, found=picture.clipped_share, limit=limits.clipped_share, words=words)


def _film(where: str, film: FilmMeasures, asked: Asked, limits: Thresholds) -> Iterator[Row]:
    share = film.constant_frames / max(1, film.frames)
    words = f"{film.constant_frames} of {film.frames} frames show one colour"
    ok = share < limits.clipped_frames
    yield _row(OutputCheck.CONSTANT, where, ok=ok, found=share, limit=limits.clipped_frames, words=words)
    if film.frames > 2 and film.whole:
        still = film.still_seconds / film.seconds if film.seconds else 0.0
        words = f"the film stands still for {film.still_seconds:.2f} of {film.seconds:.2f} seconds"
        ok = still < limits.frozen_share or film.still_seconds < limits.frozen_seconds or not ok
        yield _row(OutputCheck.FROZEN, where, ok=ok, found=still, limit=limits.frozen_share, words=words)
    torn = film.torn_frames + film.damaged_frames
    words = f"{film.torn_frames} frames are torn and {film.damaged_frames} damaged in the file"
    yield _row(OutputCheck.TORN, where, ok=torn <= limits.torn_frames, found=torn, limit=limits.torn_frames,
               words=words)  # fmt: skip
    yield from _promised(where, film, asked, limits)


def _promised(where: str, film: FilmMeasures, asked: Asked, limits: Thresholds) -> Iterator[Row]:
    """Compare a film with what was asked for; of a long one that was decoded by key frames only, nothing is known."""
    if not film.whole:
        return
    if asked.frames is not None:
        words = f"{film.frames} frames, {asked.frames} were asked for"
        least = asked.frames - limits.frame_slack if asked.frames > 2 * limits.frame_slack else asked.frames
        yield _row(OutputCheck.FRAMES, where, ok=film.frames >= least, found=film.frames, limit=least, words=words)
    if asked.frame_rate is not None and film.frames > 1:
        off = abs(film.frame_rate - asked.frame_rate) / asked.frame_rate
        words = f"{film.frame_rate:.2f} frames a second, {asked.frame_rate:g} were asked for"
        yield _row(OutputCheck.FRAME_RATE, where, ok=off <= limits.frame_rate_share, found=off,
                   limit=limits.frame_rate_share, words=words)  # fmt: skip
    if asked.seconds is not None:
        yield _duration(where, film.seconds, asked.seconds, limits)


def _duration(where: str, seconds: float, asked: float, limits: Thresholds) -> Row:
    slack = max(limits.duration_seconds, limits.duration_share * asked)
    words = f"{seconds:.2f} seconds, {asked:g} were asked for"
    off = abs(seconds - asked)
    return _row(OutputCheck.DURATION, where, ok=off <= slack, found=off, limit=slack, words=words)


def _sound(where: str, sound: SoundMeasures, film: FilmMeasures | None, limits: Thresholds) -> Iterator[Row]:
    words = f"{sound.not_finite} samples of the sound are no numbers"
    yield _row(OutputCheck.NOT_A_NUMBER, where, ok=not sound.not_finite, found=sound.not_finite, limit=0, words=words)
    most = limits.silent_share if film is None else limits.silent_film_share
    words = f"{sound.silent_share:.1%} of the sound is silent, with {sound.distinct} different values"
    ok = sound.silent_share < most and sound.distinct >= limits.distinct_values
    yield _row(OutputCheck.SILENT, where, ok=ok, found=sound.silent_share, limit=most, words=words)
    words = f"{sound.clipped_share:.1%} of the samples lie in flat tops"
    ok = sound.clipped_share < limits.sound_clipped_share or not ok
    yield _row(OutputCheck.SOUND_CLIPPED, where, ok=ok, found=sound.clipped_share, limit=limits.sound_clipped_share,
               words=words)  # fmt: skip
    if film is not None and film.whole:
        yield _sync(where, sound, film, limits)


def _sync(where: str, sound: SoundMeasures, film: FilmMeasures, limits: Thresholds) -> Row:
    begin = abs(sound.sound_start - film.video_start)
    end = abs(sound.sound_start + sound.seconds - film.video_start - film.seconds)
    words = f"sound and pictures begin {begin:.3f} and end {end:.3f} seconds apart"
    ok = begin <= limits.sync_seconds and end <= limits.sync_end_seconds
    beyond = begin > limits.sync_seconds or end <= limits.sync_end_seconds  # which of the two is told
    found, limit = (begin, limits.sync_seconds) if beyond else (end, limits.sync_end_seconds)
    return _row(OutputCheck.OUT_OF_SYNC, where, ok=ok, found=found, limit=limit, words=words)


def broken_by(rows: Sequence[Row]) -> Row | None:
    """Return the first failed row; None when the output is whole."""
    return next((row for row in rows if row.failed), None)
