"""The signatures that a model brings: one `model.sig` a folder, over all files below that folder.

It decides which of them hold and what they cover, given the operator's trusted keys. Whether a missing one forbids is
`decide`'s. Runs where importing the library is acceptable: in commands and in the limited child.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.artefacts.findings import Finding, FlawKind
from forestay.artefacts.manifest import Manifest
from forestay.artefacts.signing import SIGNATURE_NAME, Signed, TrustedKey, verify


@dataclasses.dataclass(frozen=True, slots=True)
class SignedFolder:
    """A signature that holds: the folder it covers (empty: all), the key's name, and the files it names."""

    folder: str
    key: str
    files: frozenset[str]  # names relative to the bundle


@dataclasses.dataclass(frozen=True, slots=True)
class Signatures:
    """All of a model's signatures: those that hold, those that are broken, those by keys that nobody trusts."""

    good: tuple[SignedFolder, ...] = ()
    broken: tuple[Finding, ...] = ()
    unknown: tuple[Finding, ...] = ()


def check_signatures(manifest: Manifest, texts: Mapping[str, str], keys: Sequence[TrustedKey]) -> Signatures:
    """Verify every signature of a model; `texts` are the signatures by folder."""
    good: list[SignedFolder] = []
    broken: list[Finding] = []
    unknown: list[Finding] = []
    for folder, text in sorted(texts.items()):
        result = verify(text, manifest.below(folder), keys)
        prefix = f"{folder}/" if folder else ""
        if isinstance(result, Signed):
            good.append(SignedFolder(folder, result.key, frozenset(prefix + name for name in result.files)))
            continue
        found = Finding(prefix + SIGNATURE_NAME, FlawKind.SIGNATURE, "", result.reason)
        (unknown if result.unknown_key else broken).append(found)
    return Signatures(tuple(good), tuple(broken), tuple(unknown))
