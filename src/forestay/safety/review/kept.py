"""What a sealed copy holds: a refused input with what is needed to submit it, or a stopped output. Pure.

Called by `opening` (to make it), `carrying` (to use it) and the admin API (to show it).
"""

from typing import TypeVar

import msgspec

from forestay.errors import Refused
from forestay.queue.model import Options


class KeptInput(msgspec.Struct, frozen=True):
    """A refused input."""

    body: bytes  # the caller's, verbatim
    options: Options
    predicted_seconds: float


class KeptOutput(msgspec.Struct, frozen=True):
    """A stopped output, as the model gave it and the worker judged it."""

    status_code: int
    headers: dict[str, str]
    body: bytes
    media_ids: list[str]
    options: Options
    revision_id: str = ""  # that made it


_Kept = TypeVar("_Kept", KeptInput, KeptOutput)


def packed(kept: KeptInput | KeptOutput) -> bytes:
    """Return the bytes to seal."""
    return msgspec.msgpack.encode(kept)


def unpacked(data: bytes, kind: type[_Kept]) -> _Kept:
    """Read what was sealed; raises Refused when it is another kind's, or an unknown version's."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Refused("the sealed copy is of a form that is not known here") from None
