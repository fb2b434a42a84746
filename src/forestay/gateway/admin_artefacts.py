"""Admin routes of models' files: admission at deploy, and the keys whose signatures count.

It decides how a refusal is told: 422 with one line a finding, each naming the file, the flaw and the mend. What is
admitted is `artefacts`' word; the decision, its waivers and the digest of all files leave an audit row.
"""

import re

import msgspec

from forestay.artefacts.decide import Admit, Refuse
from forestay.artefacts.limited import ExaminationFailed
from forestay.artefacts.signing import MAX_KEY_BYTES, read_public_key
from forestay.artefacts.store import StoredKey
from forestay.errors import Refused, UsageError
from forestay.fleet.spec import ModelSpec
from forestay.gateway.admin_reading import Act, NotThere, Problem
from forestay.gateway.responses import Reply, json_reply
from forestay.telemetry.metrics import ARTEFACT_FINDINGS

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TOLD_FINDINGS = 50


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    public_key: str  # PEM


class FilesRefused(UsageError):
    """A model's files are not admitted: one line a finding."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__("digest", refusal.reason)
        told = [str(item) for item in refusal.findings[:_TOLD_FINDINGS]]
        more = len(refusal.findings) - len(told)
        self.faults = tuple([*told, f"and {more} more findings"] if more else told)


async def admit(act: Act, spec: ModelSpec, digest: str) -> Admit:
    """Return the admission of a stored bundle; raises FilesRefused with every finding."""
    admission, asked = act.ports.artefacts, spec.artefacts
    try:
        report = await admission.examine(digest, asked.allow_pickle.files if asked.allow_pickle else ())
        decided = await admission.decide(report, asked)
    except (ExaminationFailed, Refused) as error:
        raise Problem(422, f"{error}; the bundle is not admitted", "artefacts") from None
    if isinstance(decided, Refuse):
        for kind in {item.kind for item in decided.findings}:
            act.ports.metrics.add(ARTEFACT_FINDINGS, kind, "import")
        raise FilesRefused(decided)
    waiver = asked.allow_pickle
    detail: dict[str, object] = {
        "bundle": digest,
        "files": report.manifest.digest,
        "waived": list(decided.waived),
        "waiver": {"reason": waiver.reason, "until": waiver.until.isoformat()} if waiver and decided.waived else None,
        "signed_by": list(decided.signed_by),
    }
    await act.record("admit_files", f"models:{spec.model_id}", detail, decided.reason)
    return decided


async def get_trust(act: Act) -> Reply:
    """List the trusted keys."""
    return json_reply(200, {"keys": [_view(stored) for stored in await act.ports.artefacts.store.trusted_keys()]})


async def post_trust(act: Act) -> Reply:
    """Trust a key."""
    wanted = await act.json(_NewKey)
    if _NAME.fullmatch(wanted.name) is None:
        raise UsageError(
            "name", "must be 1 to 63 lower-case letters, digits, `_`, `.` and `-`, a letter or digit first"
        )
    if len(wanted.public_key) > MAX_KEY_BYTES:
        raise UsageError("public_key", f"is longer than {MAX_KEY_BYTES} characters")
    try:
        key = read_public_key(wanted.public_key, wanted.name)
    except UsageError as error:
        raise UsageError("public_key", error.message) from None
    if not await act.ports.artefacts.store.trust(key, actor=act.actor):
        message = f"{wanted.name} or that very key is trusted already; remove the old one first"
        raise Problem(409, message, "there_already")
    return json_reply(201, {"name": key.name, "fingerprint": key.fingerprint})


async def delete_trust(act: Act) -> Reply:
    """Stop trusting a key: models signed by it alone fail at their next start where signatures are required."""
    name = act.path("name")
    if not await act.ports.artefacts.store.distrust(name, actor=act.actor):
        raise NotThere(f"no trusted key {name[:80]!r}; `forestay artefact trust list` shows those that exist")
    return json_reply(200, {"name": name})


def _view(stored: StoredKey) -> dict[str, object]:
    return {
        "name": stored.key.name,
        "fingerprint": stored.key.fingerprint,
        "added_by": stored.added_by,
        "added_at": stored.added_at,
    }
