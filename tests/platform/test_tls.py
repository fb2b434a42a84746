"""The local certificate authority: what it issues, when it renews, and that strict clients accept it."""

import datetime as dt
import pathlib
import socket
import ssl
import threading

import pytest

from forestay.tls import client_environment, ensure_tls, read_tls

NOW = dt.datetime.now(dt.UTC)  # noqa: TID251 - the handshake below is judged by the machine's own clock


def handshake(folder: pathlib.Path, name: str) -> str:
    """Shake hands as a client that trusts only our authority and expects `name`; returns the protocol."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secured:
            return str(secured.version())
    finally:
        ours.close()
        thread.join(5)


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", "fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media"]
)
def test_a_strict_client_that_trusts_the_authority_accepts_every_name(tmp_path: pathlib.Path, name: str) -> None:
    """This machine's names and fal's own are borne by the certificate."""
    ensure_tls(tmp_path, NOW)
    assert handshake(tmp_path, name).startswith("TLS")


def test_another_name_is_refused_by_the_client(tmp_path: pathlib.Path) -> None:
    """The certificate is not good for anything else."""
    ensure_tls(tmp_path, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "example.org")


def test_a_second_call_keeps_everything_as_it_is(tmp_path: pathlib.Path) -> None:
    """Repeating changes nothing."""
    ensure_tls(tmp_path, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not ensure_tls(tmp_path, NOW).renewed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_certificate_near_its_end_is_renewed_by_the_same_authority(tmp_path: pathlib.Path) -> None:
    """Clients that trust the authority notice nothing."""
    ensure_tls(tmp_path, NOW - dt.timedelta(days=380))
    authority = (tmp_path / "ca.pem").read_bytes()
    files = ensure_tls(tmp_path, NOW)
    assert files.renewed
    assert files.expires_at - NOW > dt.timedelta(days=300)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    handshake(tmp_path, "localhost")


def test_a_new_host_name_leads_to_a_new_certificate(tmp_path: pathlib.Path) -> None:
    """A further name is added, the authority stays."""
    ensure_tls(tmp_path, NOW)
    assert ensure_tls(tmp_path, NOW, ("forestay.example.net",)).renewed
    handshake(tmp_path, "forestay.example.net")


def test_a_damaged_certificate_is_made_anew(tmp_path: pathlib.Path) -> None:
    """A file cut short is no reason to fail."""
    ensure_tls(tmp_path, NOW)
    (tmp_path / "server.pem").write_text("-----BEGIN")
    assert ensure_tls(tmp_path, NOW).renewed
    handshake(tmp_path, "localhost")


def test_keys_are_readable_by_their_owner_alone(tmp_path: pathlib.Path) -> None:
    """Both private keys have mode 0600, whatever the umask."""
    ensure_tls(tmp_path / "new", NOW)
    for name in ("ca-key.pem", "server-key.pem"):
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600


def test_missing_files_are_told_apart_from_present_ones(tmp_path: pathlib.Path) -> None:
    """Reading never makes anything."""
    assert read_tls(tmp_path) is None
    ensure_tls(tmp_path, NOW)
    assert read_tls(tmp_path) is not None


def test_client_variables_name_host_and_prefix_without_a_scheme() -> None:
    """The Python client puts the scheme in front by itself."""
    variables = client_environment(pathlib.Path("/ca.pem"), "https://127.0.0.1:8443", "")
    assert variables["FAL_RUN_HOST"] == "127.0.0.1:8443/run"
    assert variables["FAL_QUEUE_RUN_HOST"] == "127.0.0.1:8443/queue"
    assert "HTTPS_PROXY" not in variables
