"""Signing the weights that go into a bundle: each folder below its root that holds some, by one key.

It decides which folders: those directly below the bundle's root, since a signature covers a whole folder and the root
holds the spec, which people edit. Called by `forestay model onboard --sign`.
"""

import asyncio
import pathlib

from forestay.errors import UsageError
from forestay.fleet.bundle import BundlePlan


def sign_weights(plan: BundlePlan, key: pathlib.Path) -> list[pathlib.Path]:
    """Write a `model.sig` into each folder of weights that lacks a fresh one; returns those.

    Raises UsageError where weights lie in the root itself.
    """
    from forestay.artefacts import limited
    from forestay.artefacts.folder import measure_folder
    from forestay.artefacts.formats import PICKLES, WEIGHTS
    from forestay.artefacts.signing import SIGNATURE_NAME
    from forestay.artefacts.signing import sign as sign_manifest

    report = asyncio.run(limited.examine(plan.root))
    ours = {file.name for file in plan.files}
    heavy = [file.name for file in report.files if file.format in WEIGHTS | PICKLES and file.name in ours]
    loose = sorted(name for name in heavy if "/" not in name)
    if loose:
        raise UsageError("--sign", f"{loose[0]} lies beside the spec; put weights into a folder of their own")
    folders = [plan.root / name for name in sorted({name.partition("/")[0] for name in heavy})]
    stale = [folder for folder in folders if _is_stale(folder, folder / SIGNATURE_NAME)]
    for folder in stale:
        manifest, findings = measure_folder(folder)
        if findings:
            raise UsageError("--sign", str(findings[0]))
        (folder / SIGNATURE_NAME).write_text(sign_manifest(manifest, folder.resolve().name, key), encoding="utf-8")
    return stale


def _is_stale(folder: pathlib.Path, signature: pathlib.Path) -> bool:
    """Tell whether a file is newer than the signature: signing anew makes another revision of the same weights."""
    if not signature.exists():
        return True
    signed_at = signature.stat().st_mtime
    return any(file.is_file() and file.stat().st_mtime > signed_at for file in folder.rglob("*"))
