"""The key and certificates under which we sign manifests: an operator's own, or a chain of our own made once.

A chain that we make is signed by an authority of our own: whoever checks a manifest sees that it is whole and who says
so, and must be told that this authority is to be trusted (`authority.pem`). An operator with a certificate of a listed
authority puts chain.pem and key.pem there instead. Decides names and lifetimes. Called by the wiring.
"""

import dataclasses
import datetime as dt
import fcntl
import os
import pathlib
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forestay.errors import UsageError

_VARIABLE = "FORESTAY_PROVENANCE_DIR"
_LIFETIME = dt.timedelta(days=3_650)
_BACKDATE = dt.timedelta(hours=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What signs, and what proves it: PEM texts; `authority` ends the chain."""

    chain: str
    authority: str
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature in the form of RFC 9053: r and s, 32 bytes each."""
        first, second = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return first.to_bytes(32) + second.to_bytes(32)


def load_or_create_identity(folder: pathlib.Path, now: dt.datetime) -> Identity:
    """Read chain.pem and key.pem of a folder, making both (mode 0600) if neither is there; UsageError when unusable."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    if not (chain.exists() and key.exists()):
        _create_once(folder, now)
    try:
        chain_text, key_bytes = chain.read_text(encoding="ascii"), key.read_bytes()
        certificates = x509.load_pem_x509_certificates(chain_text.encode())
        private = load_pem_private_key(key_bytes, password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(_VARIABLE, f"{folder} needs chain.pem and key.pem that can be read: {error}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UsageError(_VARIABLE, f"{key} must be a P-256 key: manifests are signed with ES256")
    if certificates[0].public_key() != private.public_key():
        raise UsageError(_VARIABLE, f"the first certificate of {chain} is not that of {key}")
    if key.stat().st_mode & 0o077:
        raise UsageError(_VARIABLE, f"{key} may be read by others; run: chmod 600 {key}")
    if certificates[0].not_valid_after_utc <= now:
        raise UsageError(_VARIABLE, f"the certificate in {chain} ended at {certificates[0].not_valid_after_utc}")
    authority = certificates[-1].public_bytes(Encoding.PEM).decode()
    return Identity(chain_text, authority, private)


def _create_once(folder: pathlib.Path, now: dt.datetime) -> None:
    """Make both files if neither is there; of workers that start together one makes them, and the others wait."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".making").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for milliseconds, and let go with its process
        if not (folder / "chain.pem").exists() and not (folder / "key.pem").exists():
            _create(folder, now)


def _create(folder: pathlib.Path, now: dt.datetime) -> None:
    """Make an authority, a signer below it, and their files; the authority's key is thrown away."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _builder("Forestay provenance authority", "Forestay provenance authority", root_key, now)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = root.add_extension(_usage(signs_certificates=True), critical=True).sign(root_key, hashes.SHA256())
    leaf = _builder("Forestay provenance", "Forestay provenance authority", key, now)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(_usage(signs_certificates=False), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    signed = leaf.add_extension(issuer, critical=False).sign(root_key, hashes.SHA256())
    chain = signed.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM)
    _write(folder / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(folder / "authority.pem", authority.public_bytes(Encoding.PEM))
    _write(folder / "chain.pem", chain)


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Forestay")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: pathlib.Path, data: bytes) -> None:
    """Write beside the file and link it into place, readable by its owner alone; an earlier file stays."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        pathlib.Path(draft).unlink()
