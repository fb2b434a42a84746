"""The `artefacts` section of a spec's file: signatures, waivers for pickles, and what data mounts hold.

It decides what is a valid section and says of each fault how to mend it; what the section leads to is `artefacts`' own.
Used by `spec_file`.
"""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from forestay.fleet.spec import ArtefactSpec, MountDigest, PickleWaiver
from forestay.fleet.spec_fields import Line, Strict, shape

_KeyName = Annotated[
    str,
    StringConstraints(max_length=63),
    *shape(r"[a-z0-9][a-z0-9_.-]*", "use lower-case letters, digits, `_`, `.` and `-`"),
]


class PickleWaiverFile(Strict):
    """Pickles that are admitted all the same. Only names on the allow-list pass, and fickling must agree."""

    files: tuple[Line, ...] = Field(min_length=1, max_length=50)
    """Files by their names in the bundle; those of a data mount by their whole path."""
    reason: Annotated[Line, StringConstraints(min_length=10)]
    """Why they are accepted; stands in the audit log."""
    until: dt.date
    """Last day of the waiver, such as 2026-12-31."""


class MountDigestFile(Strict):
    """What a data mount holds: by digest, or a reason why nobody checks."""

    folder: Annotated[str, StringConstraints(max_length=500), *shape(r"/[^:\x00]*", "write an absolute folder")]
    """Host folder of a data mount."""
    digest: Annotated[
        str, StringConstraints(max_length=71), *shape(r"(sha256:[0-9a-f]{64})?", "write `sha256:` and 64 hex digits")
    ] = ""
    """What `forestay artefact digest FOLDER` prints: measured again at every start."""
    reason: Annotated[str, StringConstraints(max_length=200), *shape(r"[^\x00-\x1f\x7f]*", "write one line")] = ""
    """Instead of a digest: why the files need not be checked."""

    @model_validator(mode="after")
    def _says_one(self) -> "MountDigestFile":
        if bool(self.digest) == bool(self.reason.strip()):
            message = "give a `digest`, or else a `reason` why nobody checks this folder"
            raise ValueError(message)
        return self


class ArtefactFile(Strict):
    """What is asked of the model's own files."""

    signature: Literal["optional", "required"] = "optional"
    """required: every file of weights is covered by a signature (`model.sig`) of a trusted key."""
    keys: tuple[_KeyName, ...] = Field((), max_length=20)
    """Trusted keys that count, by name; none means any."""
    allow_pickle: PickleWaiverFile | None = None
    """Waiver for pickles."""
    mounts: tuple[MountDigestFile, ...] = Field((), max_length=20)
    """One entry for each data mount."""

    def frozen(self) -> ArtefactSpec:
        """Return the frozen value."""
        waiver = self.allow_pickle
        return ArtefactSpec(
            signature=self.signature,
            keys=self.keys,
            allow_pickle=PickleWaiver(waiver.files, waiver.reason, waiver.until) if waiver else None,
            mounts=tuple(MountDigest(item.folder, item.digest, item.reason) for item in self.mounts),
        )
