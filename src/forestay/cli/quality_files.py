"""Numbers and contracts of files on disk for `forestay quality evaluate`; opened in the limited child, like outputs."""

import pathlib
from collections.abc import Sequence

from forestay.errors import UsageError
from forestay.fleet.spec_quality import QualityMode, QualitySpec
from forestay.media.decode import Decoder, MediaRefused, limits_of
from forestay.media.limits import Looking
from forestay.media.looking import Look, look
from forestay.quality.asked import Asked, Served
from forestay.quality.contracts import File, broken_by, check_output
from forestay.quality.noting import NAMES, note_outputs
from forestay.settings import Ingress

_NUMBERS_ALONE = Looking(most=0, measure=True)
_SPEC = QualitySpec(QualityMode.ENFORCE)


async def evaluated(files: Sequence[pathlib.Path]) -> list[dict[str, object]]:
    """Return a row for each file; UsageError names one that is not there."""
    decoder = Decoder(limits_of(Ingress()))
    try:
        return [await _one(decoder, path) for path in files]
    finally:
        await decoder.close()


async def _one(decoder: Decoder, path: pathlib.Path) -> dict[str, object]:
    try:
        source = path.open("rb")
    except OSError as error:
        raise UsageError("FILES", f"{path} cannot be read: {error.strerror}") from None
    with source:
        try:
            found = await look(decoder, source, _NUMBERS_ALONE, _pass_by)
            file = File(path.name, 0, None if found is None else found.measured)
        except MediaRefused as error:
            file = File(path.name, 0, None, error.message)
    row = broken_by(check_output([file], Asked(), Served(), _SPEC))
    noted = note_outputs({}, [file], [], b"offline")[0]
    return {
        "file": str(path),
        "kind": noted.kind or None,
        "failed": None if row is None else row.check.value,
        "words": None if row is None else row.words,
        "features": dict(zip(NAMES.get(noted.kind, ()), noted.features, strict=False)),
    }


async def _pass_by(one: Look) -> bool:
    del one
    return True
