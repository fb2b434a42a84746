"""Says to a caller why a file of its input was not taken, in fal's words (contract, section 1.6b).

Decides the `type` and `ctx` of the 422 from what went wrong; fal has no words for some of it, and the nearest one is
taken then (https://docs.fal.ai/errors). Names the field. Called by `inputs`.
"""

import dataclasses
from collections.abc import Mapping

import msgspec

from forestay.media.decode import MediaRefused
from forestay.queue.model import Answer
from forestay.worker.input_fields import InputKind, Location

_FORMATS: Mapping[str, list[str]] = {
    "image": ["png", "jpeg", "webp", "gif", "tiff"],
    "video": ["mp4", "mov", "webm", "mkv"],
    "audio": ["wav", "flac", "mp3", "ogg", "m4a"],
}
_MAX_SHOWN = 2_000
_MAX_SHOWN_DATA = 64  # of a data: URI


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one file."""

    type: str
    message: str
    context: Mapping[str, object] = dataclasses.field(default_factory=dict[str, object])


def not_downloaded(why: str) -> Problem:
    """Say that the file could not be had."""
    return Problem("file_download_error", f"Failed to download the file: {why}")


def too_many_bytes(max_bytes: int) -> Problem:
    """Say that the files are too large."""
    message = f"The files of one request may have {max_bytes} bytes together"
    return Problem("file_too_large", message, {"max_size": max_bytes})


def not_weights(why: str) -> Problem:
    """Say that weights are not taken."""
    return Problem("file_download_error", f"The weights cannot be used: {why}")


def not_opened(error: MediaRefused, kind: InputKind) -> Problem:
    """Say why media was not opened."""
    noun = kind if kind in _FORMATS else "video" if error.limit == "max_seconds" else "image"
    said = f"The {noun if kind in _FORMATS else 'file'} cannot be used: {error.message}"
    if error.fault == "unsupported" or (error.fault == "broken" and noun != "image"):
        return Problem(f"unsupported_{noun}_format", said, {"supported_formats": _FORMATS[noun]})
    if error.fault == "too_long":
        context = {"max_duration": error.allowed, "provided_duration": error.given}
        return Problem(f"{'audio' if noun == 'audio' else 'video'}_duration_too_long", said, context)
    if error.fault == "broken":
        return Problem("image_load_error", said)
    if noun == "image" and error.limit.startswith("max_"):
        return Problem("image_too_large", said, {"limit": error.limit, "max": error.allowed, "provided": error.given})
    return Problem("file_too_large", said, {"limit": error.limit, "max": error.allowed, "provided": error.given})


def undeclared_url(location: Location) -> Answer:
    """Return the answer to a URL in a field that the model's spec does not declare."""
    problem = Problem("value_error", "This field takes no URL: files are fetched for declared fields alone")
    return refusal(location, None, problem)


def refusal(location: Location, given: str | None, problem: Problem) -> Answer:
    """Return the 422 that names the field; `given` is what stood there, cut."""
    detail: dict[str, object] = {
        "loc": ["body", *location],
        "msg": problem.message,
        "type": problem.type,
        "url": f"https://docs.fal.ai/errors#{problem.type}",
    }
    if problem.context:
        detail["ctx"] = dict(problem.context)
    if given is not None:
        cut = _MAX_SHOWN_DATA if given.lstrip()[:5].lower() == "data:" else _MAX_SHOWN
        detail["input"] = given[:cut]
    return Answer(
        status_code=422,
        headers={"content-type": "application/json", "x-fal-billable-units": "0"},
        body=msgspec.json.encode({"detail": [detail]}),
        error=problem.message,
        error_type=problem.type,
    )
