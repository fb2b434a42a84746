"""Words drawn inside pictures and frames: rapidocr (PP-OCR) reads them, the text detector of ours scores them.

Decides how large a picture is read (a long side of 1,920 pixels at most, words looked for at 960), how many lines are
read, and that lines beyond that, or in a language which the text detector does not cover, are trouble unless what was
read reaches the operating point. What was read is neither noted nor logged: only how many words, and the highest
category. It declares the categories of the text detector, and judges the words alone: what a picture shows it does not
see. Loaded by the judge, and by it the models when they are first needed: they take seconds and some hundred MB, and
most policies do not name it. They ship inside the package and are believed by their digest; nothing is downloaded.
"""

# rapidocr is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.errors import Unavailable
from forestay.safety.classifiers.weights import weights_in
from forestay.safety.judge.folder import missing
from forestay.safety.judge.lanes import Detector
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Trouble, Unscored
from forestay.safety.taxonomy import Modality
from forestay.safety.text.detector import OPERATING_POINT, TextGuard, declared
from forestay.safety.text.language import covered

DETECTOR_ID = "drawn-text@1"
EXTRA = "ocr"
MAX_SIDE = 1_920  # pixels: a larger picture is read in this size
MIN_SIDE = 64  # a smaller one gets an edge: the network's step is 32
SEARCHED_SIDE = 960  # words are looked for in this size, and read in the size above
MAX_LINES = 128
SURE = 0.5  # of the reader, below which a line is noise
_SETTINGS = "1"  # to be raised with any of the numbers above, since scores depend on them
_WEIGHTS: Mapping[str, tuple[str, str]] = {
    "Det": ("PP-OCRv6_det_small.onnx", "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"),
    "Cls": ("ch_ppocr_mobile_v2.0_cls_mobile.onnx", "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"),
    "Rec": ("PP-OCRv6_rec_small.onnx", "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"),
}

Pixels = npt.NDArray[np.uint8]


class _Read(Protocol):
    """Lines, and how sure the reader is of each."""

    txts: Sequence[str] | None
    scores: Sequence[float] | None


class _Reader(Protocol):
    """What is used of rapidocr: its steps, since between the first two the number of lines is bounded."""

    def detect_and_crop(self, img: Pixels, op_record: dict[str, object]) -> tuple[Sequence[Pixels], object]: ...
    def cls_and_rotate(self, img: Sequence[Pixels]) -> tuple[Sequence[Pixels], object]: ...
    def recognize_txt(self, img: Sequence[Pixels]) -> _Read: ...


class DrawnText:
    """The detector; one picture at a time on one thread."""

    def __init__(self) -> None:
        self._paths = {
            task: weights_in("rapidocr", f"models/{name}", sha256, EXTRA) for task, (name, sha256) in _WEIGHTS.items()
        }
        if importlib.util.find_spec("onnxruntime") is None:
            raise Unavailable(f"the package onnxruntime is not installed; install forestay[{EXTRA}]")
        self._meaning = not missing()
        self._reader: _Reader | None = None
        self._guard: TextGuard | None = None

    @property
    def info(self) -> DetectorInfo:
        """Return what it declares: the categories of the text detector, of words in pictures and frames alone."""
        text = declared(with_embeddings=self._meaning)
        parts = (_SETTINGS, text.detector_id, text.digest, *(sha256 for _, sha256 in _WEIGHTS.values()))
        digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        categories = text.covers[Modality.TEXT]
        covers = {Modality.IMAGE: categories, Modality.VIDEO: categories}
        return DetectorInfo(DETECTOR_ID, f"sha256:{digest}", covers, costly=True)

    def load(self) -> None:
        """Wait for the first picture: see above."""

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Return the scores of the words in a picture; a picture without words scores nothing."""
        if not isinstance(content, Picture) or not _is_whole(content):
            return Unscored(DETECTOR_ID, content.where, Trouble.UNREADABLE)
        lines, all_read = self._lines(pixels_of(content))
        if self._guard is None:
            self._guard = TextGuard.load(with_embeddings=self._meaning)
        [found] = self._guard.score(["\n".join(lines)])
        if found.overall < OPERATING_POINT:
            if not all_read:
                return Unscored(DETECTOR_ID, content.where, Trouble.UNREADABLE)
            if not covered(found.language):
                return Unscored(DETECTOR_ID, content.where, Trouble.LANGUAGE)
        if not lines:
            return Scores(DETECTOR_ID, content.where, {}, notes={"words": "0"})
        highest = max(found.scores, key=lambda category: found.scores[category])
        notes = {"words": str(sum(len(line.split()) for line in lines)), "highest": highest.value}
        return Scores(DETECTOR_ID, content.where, found.scores, notes=notes)

    def _lines(self, pixels: Pixels) -> tuple[list[str], bool]:
        """Return what is written, top to bottom, and whether that is all of it."""
        if self._reader is None:
            self._reader = _reader(self._paths)
        from rapidocr.main import RapidOCRError  # noqa: PLC0415 - see _reader

        try:
            found, _ = self._reader.detect_and_crop(pixels, {})
        except RapidOCRError:
            return [], True  # that is how it says that there are no words
        upright, _ = self._reader.cls_and_rotate(found[:MAX_LINES])
        read = self._reader.recognize_txt(upright)
        sure = zip(read.txts or (), read.scores or (), strict=True)
        return [text for text, score in sure if score >= SURE and text.strip()], len(found) <= MAX_LINES


def pixels_of(picture: Picture) -> Pixels:
    """Return the picture as it is read, `[height, width, 3] uint8`, blue-green-red, sides of 64 to 1,920 pixels."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    rgb = np.asarray(image)
    short = [max(0, MIN_SIDE - side) for side in rgb.shape[:2]]
    edges = [(lacking // 2, lacking - lacking // 2) for lacking in short]
    return np.ascontiguousarray(np.pad(rgb, (*edges, (0, 0)), mode="edge")[:, :, ::-1])


def _is_whole(picture: Picture) -> bool:
    sides = (picture.width, picture.height)
    return min(sides) >= 1 and sides[0] * sides[1] * 3 == len(picture.rgb)


def _reader(paths: Mapping[str, pathlib.Path]) -> _Reader:
    """Load the models from their paths; without one of these the package would fetch its own."""
    from rapidocr import RapidOCR  # noqa: PLC0415 - takes a second or two, and most judges are never asked

    reader = RapidOCR(
        params={
            "Global.log_level": "critical",  # nothing that was read goes into a log
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_type": "max",  # else a narrow strip is blown up to gigabytes
            "Det.limit_side_len": SEARCHED_SIDE,
            "Rec.rec_batch_num": 1,  # else short lines are padded to the longest: memory
            **{f"{task}.model_path": str(path) for task, path in paths.items()},
        }
    )
    return cast("_Reader", reader)


def detectors() -> list[Detector]:
    """Return what this module brings."""
    return [DrawnText()]
