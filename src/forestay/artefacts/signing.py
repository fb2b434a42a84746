"""Signatures of model folders in the OpenSSF model-signing format, by key: made, read and verified offline.

The one module that imports `model_signing`. It decides which signatures are read (elliptic curve keys, SHA-256 of whole
files, no links) and which trusted key one belongs to. The folder's files are hashed once, by us (`folder`), and handed
to the library as its manifest; whether the signature holds is the library's word. Importing the library takes most of a
second and 50 MB: only commands and the limited child do it. Format: github.com/sigstore/model-transparency.
"""

# The library is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportPrivateImportUsage=false, reportPrivateUsage=false

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Protocol, cast

from forestay.artefacts.manifest import Manifest, manifest_of
from forestay.errors import UsageError

SIGNATURE_NAME = "model.sig"  # OpenSSF's own name for the file beside the weights
MAX_SIGNATURE_BYTES = 32 * 1024 * 1024
MAX_KEY_BYTES = 64 * 1024
_HASH = "sha256"


@dataclasses.dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key that the operator trusts, under a name that specs may ask for."""

    name: str
    public_key: str  # PEM
    fingerprint: str  # SHA-256 of the PEM as the library writes it, in hex


@dataclasses.dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds: by which key, over which files."""

    key: str
    files: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class NotSigned:
    """Why a signature does not count."""

    reason: str
    unknown_key: bool = False  # it may hold, but nobody here trusts its key


class _Digest(Protocol):
    digest_hex: str


class _Descriptor(Protocol):
    identifier: str
    digest: _Digest


class _LibraryManifest(Protocol):
    serialization_type: dict[str, object]

    def resource_descriptors(self) -> Iterable[_Descriptor]: ...


def make_key_pair() -> tuple[str, str]:
    """Return a new private and public key (P-256), both PEM."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - heavy

    private = ec.generate_private_key(ec.SECP256R1())
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        _public_pem(private.public_key()),
    )


def read_public_key(text: str, name: str) -> TrustedKey:
    """Read a PEM public key (or a private one, of which the public half is taken); UsageError says what is wrong."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - heavy

    if "PRIVATE KEY" in text:
        raise UsageError("key", "is a private key; give the public one, and keep this one to yourself")
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError):
        raise UsageError("key", "is no public key in PEM; make a pair with `forestay artefact keygen`") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in {"secp256r1", "secp384r1", "secp521r1"}:
        raise UsageError("key", "is no key on the curve P-256, P-384 or P-521, which is what model-signing uses")
    pem = _public_pem(key)
    return TrustedKey(name, pem, hashlib.sha256(pem.encode()).hexdigest())


def sign(manifest: Manifest, folder_name: str, private_key: pathlib.Path) -> str:
    """Return the signature (a Sigstore bundle, JSON) over a folder's files; UsageError when the key cannot sign.

    Files that no bundle takes are left out and named as left out, so that other verifiers leave them out as well.
    """
    from model_signing import signing  # noqa: PLC0415 - heavy

    left_out = sorted({_hidden_part(entry.name) for entry in manifest.files} - {""})
    unsigned = bundled(manifest)
    with tempfile.TemporaryDirectory(prefix="forestay-sign-") as scratch:
        target = pathlib.Path(scratch) / SIGNATURE_NAME
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=private_key)
        except (ValueError, TypeError, AttributeError):
            raise UsageError("--key", f"{private_key} is no private key of P-256, P-384 or P-521 in PEM") from None
        measured = _Measured(unsigned, folder_name, left_out)
        config.set_hashing_config(cast("signing.hashing.Config", measured)).sign(folder_name, target)
        return target.read_text(encoding="utf-8")


def verify(signature: str, manifest: Manifest, keys: Iterable[TrustedKey]) -> Signed | NotSigned:
    """Return by which trusted key a folder with this manifest is signed, or why it is not."""
    fingerprint = fingerprint_of(signature)
    if fingerprint is None:
        return NotSigned("is no signature by key in the model-signing format")
    key = next((item for item in keys if item.fingerprint == fingerprint), None)
    if key is None:
        return NotSigned(f"is by a key that is not trusted here (fingerprint {fingerprint[:16]}...)", unknown_key=True)
    return _verify(signature, without_signature(manifest), key)


def fingerprint_of(signature: str) -> str | None:
    """Return the fingerprint of the key that a signature says it is by; None when it says none."""
    try:
        value: object = json.loads(signature) if len(signature) <= MAX_SIGNATURE_BYTES else None
        material = cast("dict[str, dict[str, dict[str, object]]]", value)["verificationMaterial"]
        hint = material["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return hint if isinstance(hint, str) and len(hint) == 64 else None


def without_signature(manifest: Manifest) -> Manifest:
    """Return a folder's manifest without the signature itself, which it cannot cover."""
    return manifest_of([entry for entry in manifest.files if entry.name != SIGNATURE_NAME])


def bundled(manifest: Manifest) -> Manifest:
    """Return the part of a folder on disk that a bundle takes, without the signature: nothing hidden, no caches."""
    kept = [entry for entry in manifest.files if not _hidden_part(entry.name)]
    return without_signature(manifest_of(kept))


def _hidden_part(name: str) -> str:
    """Return the path down to the first hidden part or Python cache in a name; empty when there is none."""
    parts = name.split("/")
    for index, part in enumerate(parts):
        if part.startswith(".") or part == "__pycache__" or part.endswith((".pyc", ".pyo")):
            return "/".join(parts[: index + 1])
    return ""


def _verify(signature: str, manifest: Manifest, key: TrustedKey) -> Signed | NotSigned:
    from model_signing import verifying  # noqa: PLC0415 - heavy

    measured = _Measured(manifest, "model")
    with tempfile.TemporaryDirectory(prefix="forestay-verify-") as scratch:
        signature_file, key_file = pathlib.Path(scratch) / SIGNATURE_NAME, pathlib.Path(scratch) / "key.pub"
        signature_file.write_text(signature, encoding="utf-8")
        key_file.write_text(key.public_key, encoding="utf-8")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the library prints its warnings
                config = verifying.Config().use_elliptic_key_verifier(public_key=key_file)
                signed = _signed_files(config, signature_file, measured)
                _refuse_differences(signed, measured.digests())
                config.set_hashing_config(cast("verifying.hashing.Config", measured)).verify("model", signature_file)
        except Exception as error:  # noqa: BLE001 - whatever the library raises on a stranger's file, it does not hold
            return NotSigned(f"does not hold: {_words(error)}")
    return Signed(key.name, frozenset(signed)) if signed else NotSigned("covers no file")


def _signed_files(config: object, signature_file: pathlib.Path, measured: "_Measured") -> dict[str, str]:
    """Return the files, with their digests, that an authentic signature names; only over whole files by SHA-256."""
    from model_signing._signing import sign_sigstore_pb  # noqa: PLC0415 - heavy; a test pins this private name

    verifier = cast("_HasVerifier", config)._verifier  # noqa: SLF001 - the public interface gives no manifest
    manifest = verifier.verify(sign_sigstore_pb.Signature.read(signature_file))
    kind = manifest.serialization_type
    if kind.get("method") != "files" or kind.get("hash_type") != _HASH or kind.get("allow_symlinks"):
        raise ValueError("it is not over whole files by SHA-256 without links; sign with `forestay artefact sign`")
    measured.add_ignored_paths(model_path="", paths=cast("list[str]", kind.get("ignore_paths", [])))
    return {item.identifier: item.digest.digest_hex for item in manifest.resource_descriptors()}


def _refuse_differences(signed: dict[str, str], seen: dict[str, str]) -> None:
    """Raise with the names of the first files that differ from what was signed; the library's own words are digests."""
    told = [f"{name} was altered" for name in sorted(signed.keys() & seen.keys()) if signed[name] != seen[name]]
    told += [f"{name} was added" for name in sorted(seen.keys() - signed.keys())]
    told += [f"{name} is missing" for name in sorted(signed.keys() - seen.keys())]
    if told:
        raise ValueError(", ".join([*told[:5], *([f"and {len(told) - 5} more"] if len(told) > 5 else [])]))


class _Verifier(Protocol):
    def verify(self, signature: object) -> _LibraryManifest: ...


class _HasVerifier(Protocol):
    _verifier: _Verifier


class _Measured:
    """Stands in for the library's hashing: gives the manifest that we have measured already."""

    def __init__(self, manifest: Manifest, name: str, left_out: Iterable[str] = ()) -> None:
        self._manifest = manifest
        self._name = name
        self._left_out = [SIGNATURE_NAME, *left_out]
        self._ignored: list[str] = []

    def hash(self, _path: object, *, files_to_hash: object = None) -> object:
        """Return the files as the library's manifest."""
        from model_signing import hashing, manifest  # noqa: PLC0415 - heavy

        del files_to_hash
        digest = hashing.hashing.Digest
        items = [
            manifest.FileManifestItem(path=pathlib.PurePosixPath(name), digest=digest(_HASH, bytes.fromhex(sha256)))
            for name, sha256 in self.digests().items()
        ]
        form = {"method": "files", "hash_type": _HASH, "allow_symlinks": False, "ignore_paths": self._left_out}
        return manifest.Manifest(self._name, items, manifest.SerializationType.from_args(form))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that is not left out."""
        return {
            entry.name: entry.sha256
            for entry in self._manifest.files
            if not any(entry.name == path or entry.name.startswith(f"{path}/") for path in self._ignored)
        }

    def add_ignored_paths(self, *, model_path: object, paths: Iterable[str]) -> None:
        """Leave out what the signer left out, as far as it lies below the folder."""
        del model_path
        self._ignored += [path for path in map(str, paths) if path and not path.startswith("/") and ".." not in path]


def _public_pem(key: object) -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - heavy

    public = cast("ec.EllipticCurvePublicKey", key)
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix("Signature mismatch: ")[:400]
