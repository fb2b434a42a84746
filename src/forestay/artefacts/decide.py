"""Whether a model's files are admitted. Pure.

It decides by findings, waivers and signatures: every finding forbids, but a pickle that its spec waives by name, with a
reason, until a day that has not passed. A waiver lifts the finding `pickle` alone: names outside the allow-list,
unclear opcodes and a second reader's doubt stand. A signature that is broken forbids even where none is asked for; one
by a key that nobody trusts counts as none. Called at import (CLI, gateway) and at every load (worker).
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.artefacts.findings import Finding, FlawKind
from forestay.artefacts.folder import SeenFile
from forestay.artefacts.formats import PICKLES, WEIGHTS
from forestay.artefacts.signatures import Signatures
from forestay.fleet.spec import ArtefactSpec, PickleWaiver


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of a model's files."""

    artefacts: ArtefactSpec
    signatures_required: bool  # by the operator, whatever the spec says


@dataclasses.dataclass(frozen=True, slots=True)
class Admit:
    """The files may be loaded."""

    waived: tuple[str, ...]  # files admitted by a waiver only
    signed_by: tuple[str, ...]  # names of keys
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """The files may not be loaded."""

    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """The findings in one line each, the first ten of them."""
        lines = [str(item) for item in self.findings[:10]]
        more = len(self.findings) - len(lines)
        return "\n".join([*lines, f"and {more} more"] if more else lines)


def decide_admission(
    files: Sequence[SeenFile],
    findings: Sequence[Finding],
    signatures: Signatures,
    policy: Policy,
    today: dt.date,
) -> Admit | Refuse:
    """Return the decision; every finding that forbids is in a refusal, not only the first."""
    waiver = policy.artefacts.allow_pickle
    names = {file.name for file in files}
    forbidding = [item for item in findings if not _is_waived(item, waiver, today)]
    forbidding += _waiver_findings(waiver, names, findings, today)
    forbidding += [*signatures.broken, *_unsigned(files, signatures, policy)]
    if forbidding:
        return Refuse(tuple(sorted(forbidding, key=lambda item: (item.file, item.kind is FlawKind.PICKLE))))
    waived = tuple(sorted({item.file for item in findings}))
    keys = tuple(sorted({signature.key for signature in signatures.good}))
    words = [f"{len(files)} files examined"]
    words += [f"pickles waived until {waiver.until}: {', '.join(waived)}"] if waiver and waived else []
    words += [f"signed by {', '.join(keys)}"] if keys else ["not signed"]
    return Admit(waived, keys, "; ".join(words))


def _is_waived(item: Finding, waiver: PickleWaiver | None, today: dt.date) -> bool:
    return item.kind is FlawKind.PICKLE and waiver is not None and item.file in waiver.files and today <= waiver.until


def _waiver_findings(
    waiver: PickleWaiver | None, names: set[str], findings: Sequence[Finding], today: dt.date
) -> list[Finding]:
    """A waiver that has ended, or that names no file, is said rather than ignored."""
    if waiver is None:
        return []
    told = [
        Finding(name, FlawKind.PICKLE, "artefacts.allow_pickle", "is waived but is not in the bundle")
        for name in waiver.files
        if name not in names and not name.startswith("/")  # a file of a data mount is judged where it lies
    ]
    pickles = {item.file for item in findings if item.kind is FlawKind.PICKLE}
    if today > waiver.until:
        ended = [name for name in waiver.files if name in pickles]
        told += [
            Finding(name, FlawKind.PICKLE, "artefacts.allow_pickle", f"its waiver ended on {waiver.until}")
            for name in ended
        ]
    return told


def _unsigned(files: Sequence[SeenFile], signatures: Signatures, policy: Policy) -> list[Finding]:
    """Where signatures are required, every file of weights must be named by one, of a key that the spec accepts."""
    if policy.artefacts.signature != "required" and not policy.signatures_required:
        return []
    accepted = [item for item in signatures.good if not policy.artefacts.keys or item.key in policy.artefacts.keys]
    covered = frozenset[str]().union(*(item.files for item in accepted))
    keys = ", ".join(policy.artefacts.keys) or "any trusted key"
    uncovered = [
        Finding(file.name, FlawKind.SIGNATURE, "", f"is covered by no signature of {keys}")
        for file in files
        if file.format in WEIGHTS | PICKLES and file.name not in covered
    ]
    return [*signatures.unknown, *uncovered] if uncovered else []
