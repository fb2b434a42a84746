"""What a manifest of ours says, and what is believed of one that is read. Pure.

The form is that of C2PA 2 (https://spec.c2pa.org): an action c2pa.created with IPTC's digitalSourceType
trainedAlgorithmicMedia, the model as its software agent, and an assertion of our own with request, model, revision,
media and time. No prompt and no caller is ever named. Called by `c2pa` and `made`.
"""

import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Mapping
from typing import cast

from forestay import __version__

ASSERTION = "org.forestay.made"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CONTENT_TYPES = frozenset({"image/png", "image/jpeg", "video/mp4", "audio/wav"})
MAX_FIELD = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What we made."""

    request_id: str
    model_id: str
    revision_id: str
    media_id: str
    made_at: dt.datetime


class Seal(enum.StrEnum):
    """What is to be believed of a manifest."""

    NONE = "none"  # there is none
    OURS = "ours"  # whole, and signed under our authority
    OTHERS = "others"  # whole, and signed by somebody else
    BROKEN = "broken"  # the file is not what was signed


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read; `made` is what it says, believed only where the seal is OURS."""

    seal: Seal
    made: Made | None = None
    issuer: str = ""
    problems: tuple[str, ...] = ()


def manifest_of(made: Made) -> str:
    """Return the definition of a manifest, as JSON."""
    said = dataclasses.asdict(made) | {"made_at": made.made_at.astimezone(dt.UTC).isoformat()}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": {"name": made.model_id, "version": made.revision_id},
        "when": said["made_at"],
    }
    return json.dumps(
        {
            "claim_generator_info": [{"name": "Forestay", "version": __version__}],
            "title": made.media_id,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
                {"label": ASSERTION, "data": said},
            ],
        }
    )


def read_manifest(store: str) -> Manifest:
    """Return what a manifest store (the reader's JSON) amounts to; whatever a stranger wrote, it never raises."""
    try:
        found = cast("Mapping[str, object]", json.loads(store))
        active = cast("Mapping[str, Mapping[str, object]]", found["manifests"])[str(found["active_manifest"])]
        state = str(found.get("validation_state", "")).lower()
        problems = tuple(
            str(item.get("code", ""))[:MAX_FIELD]
            for item in cast("list[Mapping[str, object]]", found.get("validation_status", []))[:20]
        )
        signature = cast("Mapping[str, object]", active.get("signature_info", {}))
        issuer = str(signature.get("issuer", ""))[:MAX_FIELD]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Manifest(Seal.BROKEN, problems=("unreadable",))
    seal = {"trusted": Seal.OURS, "valid": Seal.OTHERS}.get(state, Seal.BROKEN)
    return Manifest(seal, _made_of(active), issuer, problems)


def _made_of(active: Mapping[str, object]) -> Made | None:
    """Return what our own assertion says, None without one that can be read."""
    try:
        for item in cast("list[Mapping[str, object]]", active.get("assertions", [])):
            if item.get("label") == ASSERTION:
                said = {
                    name: str(value)[:MAX_FIELD] for name, value in cast("Mapping[str, object]", item["data"]).items()
                }
                made_at = dt.datetime.fromisoformat(said["made_at"])
                names = ("request_id", "model_id", "revision_id", "media_id")
                return Made(*(said[name] for name in names), made_at=made_at)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return None
