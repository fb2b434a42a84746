"""A local certificate authority and the gateway's server certificate, so that unmodified clients can speak TLS to us.

It decides which names the certificate bears (this machine's and fal's own) and when it is renewed. The authority is
made once and kept: clients trust its `ca.pem`. It does not touch the system's trust store. Called by `forestay up`,
`forestay tls` and the gateway's wiring.
"""

import dataclasses
import datetime as dt
import ipaddress
import os
import pathlib
import socket
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forestay.errors import UsageError

FAL_NAMES = (
    "fal.run",
    "*.fal.run",
    "queue.fal.run",
    "rest.fal.ai",
    "*.fal.ai",
    "fal.media",
    "v3.fal.media",
    "*.fal.media",
)
_CA_LIFETIME = dt.timedelta(days=3650)
_SERVER_LIFETIME = dt.timedelta(days=397)  # the longest that strict clients accept
_RENEW_BEFORE = dt.timedelta(days=30)
_BACKDATE = dt.timedelta(hours=1)  # for a client whose clock runs a little late


@dataclasses.dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the files are and until when the server's certificate holds."""

    ca: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path
    expires_at: dt.datetime
    names: tuple[str, ...]
    renewed: bool = False


def ensure_tls(folder: pathlib.Path, now: dt.datetime, hosts: Sequence[str] = ()) -> TlsFiles:
    """Make what is missing or near its end in `folder`; `hosts` are further names or addresses of this machine."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority, authority_key = _ensure_authority(folder, now)
    names = _names(hosts)
    certificate = _load_certificate(folder / "server.pem")
    usable = certificate is not None and (folder / "server-key.pem").exists()
    if not usable or certificate is None or not _still_good(certificate, authority, names, now):
        certificate = _issue(folder, names, authority, authority_key, now)
        return _describe(folder, certificate, renewed=True)
    return _describe(folder, certificate, renewed=False)


def read_tls(folder: pathlib.Path) -> TlsFiles | None:
    """Describe the files in `folder` without changing them; None when they are not all there."""
    certificate = _load_certificate(folder / "server.pem")
    if certificate is None or not (folder / "ca.pem").exists() or not (folder / "server-key.pem").exists():
        return None
    return _describe(folder, certificate, renewed=False)


def client_environment(ca: pathlib.Path, tls_url: str, proxy_url: str) -> dict[str, str]:
    """Return the variables that point unmodified Python and Node clients here; empty URLs leave theirs out."""
    variables = {"SSL_CERT_FILE": str(ca), "NODE_EXTRA_CA_CERTS": str(ca)}
    if tls_url:
        authority = tls_url.split("://", 1)[-1].rstrip("/")
        variables["FAL_RUN_HOST"] = f"{authority}/run"
        variables["FAL_QUEUE_RUN_HOST"] = f"{authority}/queue"
    if proxy_url:
        variables["HTTPS_PROXY"] = proxy_url
        variables["NO_PROXY"] = "localhost,127.0.0.1"  # URLs that name us directly need no detour
    return variables


def _names(hosts: Sequence[str]) -> tuple[str, ...]:
    own = ("localhost", "127.0.0.1", "::1", socket.gethostname())
    return tuple(dict.fromkeys(name for name in (*own, *hosts, *FAL_NAMES) if name and name != "0.0.0.0"))  # noqa: S104


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name if name.isascii() else name.encode("idna").decode())
    except ValueError:
        raise UsageError("--host", f"{name!r} is neither an address nor a host's name") from None


def _ensure_authority(folder: pathlib.Path, now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _load_certificate(folder / "ca.pem")
    key_file = folder / "ca-key.pem"
    if certificate is not None and key_file.exists() and certificate.not_valid_after_utc - now > _SERVER_LIFETIME:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Forestay local authority on {socket.gethostname()}")])
    certificate = (
        _builder(name, name, key.public_key(), now, _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def _issue(
    folder: pathlib.Path,
    names: Sequence[str],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Forestay gateway")])
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now, _SERVER_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_key(folder / "server-key.pem", key)
    _write(folder / "server.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _still_good(
    certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: dt.datetime
) -> bool:
    if certificate.not_valid_after_utc - now < _RENEW_BEFORE or certificate.not_valid_before_utc > now:
        return False
    if not set(names) <= set(_names_of(certificate)):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - whatever the reason, it does not chain to our authority: issue a new one
        return False
    return True


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in extension)


def _describe(folder: pathlib.Path, certificate: x509.Certificate, *, renewed: bool) -> TlsFiles:
    return TlsFiles(
        ca=folder / "ca.pem",
        certificate=folder / "server.pem",
        key=folder / "server-key.pem",
        expires_at=certificate.not_valid_after_utc,
        names=_names_of(certificate),
        renewed=renewed,
    )


def _load_certificate(path: pathlib.Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # damaged: made anew


def _write_key(path: pathlib.Path, key: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), 0o600)


def _write(path: pathlib.Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
