"""Turns a file into pictures for detectors: a still as it is, of films and animations the frames that tell most.

Decides how closely a file is looked at (`depth`): the riskier the prompt that it was made from, the more frames. The
bytes are opened in the limited child (`media/looking`), never here. Called by the worker for inputs and outputs.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import IO

from forestay.media.decode import Decoder, MediaRefused
from forestay.media.limits import Looking
from forestay.media.looking import Look, look
from forestay.media.measures import Measured
from forestay.safety.model import Picture
from forestay.safety.taxonomy import Modality

FRAMES = 16  # of a film made from a prompt that nobody minds
MOST_FRAMES = 64
EVERY_SECONDS = 1.0
LEAST_SECONDS = 0.25
MAX_LOOKS_BYTES = 256 * 1024 * 1024  # of one file; a film at the greatest depth has less than half of it

Enough = Callable[[Picture], Awaitable[bool]]  # True: what was seen decides, look no further


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What there is to judge of one file."""

    modality: Modality
    pictures: tuple[Picture, ...]  # none for sound
    missed_scenes: int = 0  # changes of scene beyond the number of looks
    whole: bool = True  # False: what was seen was enough
    measured: Measured | None = None  # where that was asked for


def depth(prompt_score: float) -> Looking:
    """Return how closely a file is looked at, by the highest score in [0, 1] of the prompt that it was made from.

    From a score of 0 to one of 1 the number of frames grows fourfold, and the time between them shrinks to a quarter.
    What is no number counts as 1.
    """
    risk = min(1.0, max(0.0, prompt_score)) if prompt_score == prompt_score else 1.0  # noqa: PLR0124 - NaN is not itself
    return Looking(
        every_seconds=EVERY_SECONDS - (EVERY_SECONDS - LEAST_SECONDS) * risk,
        most=round(FRAMES + (MOST_FRAMES - FRAMES) * risk),
    )


async def pictures_of(
    decoder: Decoder,
    file: IO[bytes],
    where: str,
    looking: Looking,
    enough: Enough | None = None,
    *,
    measure: bool = False,
) -> Seen:
    """Return what there is to see in a file, a real one; `enough` may end it after any picture.

    With `measure` numbers are taken of all of it.

    MediaRefused when it cannot be opened or not be seen whole, Unavailable when the decoder does not start.
    """
    seen: list[Picture] = []
    held, moves = 0, False

    async def take(one: Look) -> bool:
        nonlocal held, moves
        picture = Picture(_place(where, one, len(seen)), one.width, one.height, one.rgb)
        held += len(one.rgb)
        if held > MAX_LOOKS_BYTES:
            raise MediaRefused("too_heavy", f"its pictures take more than {MAX_LOOKS_BYTES} bytes")
        moves = one.moves
        seen.append(picture)
        return enough is None or not await enough(picture)

    looked = await look(decoder, file, dataclasses.replace(looking, measure=measure), take)
    if looked is None:
        return Seen(Modality.VIDEO if moves else Modality.IMAGE, tuple(seen), whole=False)
    shown = Modality.VIDEO if moves else Modality.IMAGE  # to a policy an animated picture is a film
    modality = Modality.AUDIO if looked.kind == "audio" else shown
    return Seen(modality, tuple(seen), looked.missed, measured=looked.measured)


def _place(where: str, one: Look, number: int) -> str:
    """Name a look so that no two of a file are called the same."""
    at = f" at {one.seconds:.2f} s" if number or one.seconds else ""
    ground = f" on {one.ground}" if one.ground else ""
    return f"{where} look {number + 1}{at}{ground}" if at or ground else where
