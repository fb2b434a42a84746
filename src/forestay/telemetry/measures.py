"""What of a fact is good, what is bad and what counts as neither; how long each stage took; how much work it was. Pure.

The one place where service level indicators are defined (SRE workbook, chapter 2). Facts are read as plain values, so
that those of other systems may be read too. Called by the roll-ups; `docs/explanation/indicators.md` says it in words.
"""

import datetime as dt
import enum
from collections.abc import Mapping
from typing import cast

from forestay.telemetry.causes import BROKEN_OUTPUT, SUCCEEDED, Cause, cause_of, excluded

Fact = Mapping[str, object]
NO_CONTENT = 204
BROKEN = frozenset({"runner_incomplete_response", "output_check_failed"})  # error types: broke off, failed a check
INVALID = "invalid_outputs"  # in a fact's work: how many outputs a check found to be broken

# In a fact's work where a policy asks for manifests: released files that bear one, and those that do not.
SIGNED, UNSIGNED = "signed_files", "unsigned_files"


class Measure(enum.StrEnum):
    """What can be asked of the roll-ups."""

    AVAILABILITY = "availability"  # requests that ended without a fault of ours
    LATENCY = "latency"  # from accepted to finished, of successes
    LATENCY_PER_WORK = "latency_per_work"  # seconds that the model took for one unit of work
    QUEUE_WAIT = "queue_wait"  # from accepted to the start of the attempt that answered
    RUN = "run"  # the model's own time
    FIRST_CHUNK = "first_chunk"  # from accepted to the first piece of a stream
    CHECK = "check"  # judging the output
    STORE = "store"  # from there to the stored answer
    NOTICE = "notice"  # from the stored answer to the delivered webhook
    THROUGHPUT = "throughput"  # what ended, beside what was asked for: whether the fleet keeps up
    GOODPUT = "goodput"  # device-milliseconds that went into valid outputs, of all
    DELIVERY = "delivery"  # webhooks that arrived
    VALIDITY = "validity"  # answers that are whole
    SAFETY = "safety"  # releases that were judged
    PROVENANCE = "provenance"  # released files that bear a manifest, where a policy asks for one
    SUBMIT = "submit"  # Forestay itself: submits that were not answered 5xx
    STATUS = "status"  # Forestay itself: status polls and result reads that were answered as asked, in time
    GUARD = "guard"  # Forestay itself: judgements that came to a verdict


TIMED = frozenset({
    Measure.LATENCY, Measure.LATENCY_PER_WORK, Measure.QUEUE_WAIT, Measure.RUN, Measure.FIRST_CHUNK, Measure.CHECK,
    Measure.STORE, Measure.NOTICE,
})  # fmt: skip


def cause_in(fact: Fact) -> Cause | None:
    """Return the cause that a fact carries, or derive it where an older row carries none."""
    said = fact.get("cause")
    if isinstance(said, str):
        return Cause(said)
    error_type = fact.get("error_type")
    return cause_of(str(fact["outcome"]), error_type if isinstance(error_type, str) else None)


def available(cause: Cause | None) -> bool | None:
    """Tell whether a request counts as good (True), bad (False) or neither (None: a caller's own, refused content)."""
    return None if excluded(cause) else cause is None


def valid(fact: Fact) -> bool | None:
    """Tell whether an answer is whole; None where there is none to look at.

    Not whole: an answer that broke off or failed a check of outputs, an empty body, and what a fact from outside says.
    """
    if fact["outcome"] == BROKEN_OUTPUT or fact.get("error_type") in BROKEN:
        return False
    if fact["outcome"] != SUCCEEDED:
        return None
    work = work_in(fact)
    empty = work.get("output_bytes") == 0 and fact.get("status_code") != NO_CONTENT
    return not empty and not work.get(INVALID)


def durations(fact: Fact) -> dict[Measure, float]:
    """Return the seconds of each stage that a request reached; clocks of two machines may disagree: never below 0.

    A request that was given up before it started, by no fault of its caller's, has waited for as long as it lived.
    """
    accepted, finished = _moment(fact, "submitted_at"), _moment(fact, "finished_at")
    if accepted is None or finished is None:
        return {}
    started, answered = _moment(fact, "started_at"), _moment(fact, "answered_at")
    checked, first = _moment(fact, "checked_at"), _moment(fact, "first_byte_at")
    found: dict[Measure, float] = {}
    if started is not None:
        found[Measure.QUEUE_WAIT] = _between(accepted, started)
    elif available(cause_in(fact)) is False:
        found[Measure.QUEUE_WAIT] = _between(accepted, finished)
    if first is not None:
        found[Measure.FIRST_CHUNK] = _between(accepted, first)
    if fact["outcome"] != SUCCEEDED:
        return found
    found[Measure.LATENCY] = _between(accepted, finished)
    if started is not None and answered is not None:
        found[Measure.RUN] = _between(started, answered)
        amount = normal_work(work_done(work_in(fact)))
        if amount:
            found[Measure.LATENCY_PER_WORK] = found[Measure.RUN] / amount
        found[Measure.STORE] = _between(checked or answered, finished)
        if checked is not None:
            found[Measure.CHECK] = _between(answered, checked)
    return found


def work_in(fact: Fact) -> Mapping[str, float]:
    """Return the numbers of a fact's work."""
    work = fact.get("work")
    if not isinstance(work, Mapping):
        return {}
    said = cast("Mapping[str, object]", work)
    return {name: float(value) for name, value in said.items() if isinstance(value, int | float)}


def work_done(work: Mapping[str, float]) -> dict[str, float]:
    """Return how much was made, from what the input asked for: megapixel-steps, video and audio seconds, images.

    Seconds are of video where the input also speaks of pixels or frames, else of audio.
    """
    pixels, frames, seconds = work.get("x_pixels"), work.get("x_frames"), work.get("x_seconds")
    copies = work.get("x_images", 1.0)
    done: dict[str, float] = {}
    if pixels:
        done["megapixel_steps"] = pixels / 1e6 * work.get("x_steps", 1.0) * (frames or 1.0) * copies
    if seconds:
        done["video_seconds" if pixels or frames else "audio_seconds"] = seconds * copies
    elif pixels and not frames:
        done["images"] = copies
    return done


def normal_work(done: Mapping[str, float]) -> float | None:
    """Return the amount by which a time is divided: seconds of media where there are some, else megapixel-steps."""
    return done.get("video_seconds") or done.get("audio_seconds") or done.get("megapixel_steps")


def _moment(fact: Fact, name: str) -> dt.datetime | None:
    value = fact.get(name)
    return value if isinstance(value, dt.datetime) else None


def _between(before: dt.datetime, after: dt.datetime) -> float:
    return max(0.0, (after - before).total_seconds())
