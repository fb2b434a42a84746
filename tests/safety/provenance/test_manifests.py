"""Manifests in real files: signed, read back, broken when the file is changed, and never believed of others."""

import dataclasses
import datetime as dt
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.provenance.files import FILES

from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.safety.provenance import c2pa
from forestay.safety.provenance.identity import Identity, load_or_create_identity
from forestay.safety.provenance.manifest import Made, Manifest, Seal, read_manifest

MADE = Made("r-1", "acme/pictures", "rev-7", "m" * 32, dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC))


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """An identity made at the first start."""
    return load_or_create_identity(tmp_path_factory.mktemp("provenance"), SystemClock().now())


def opened(data: bytes = b"") -> IO[bytes]:
    """A real file."""
    file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - whoever asks closes it
    file.write(data)
    file.flush()
    return file


async def signed(content_type: str, identity: Identity) -> bytes:
    """A file with a manifest."""
    with opened(FILES[content_type]) as source, opened() as out:
        await c2pa.sign(source, out, content_type, MADE, identity)
        out.seek(0)
        return out.read()


async def read(data: bytes, content_type: str, identity: Identity) -> Manifest:
    """What a file says of itself."""
    with opened(data) as file:
        return await c2pa.read(file, content_type, identity)


@pytest.mark.parametrize("content_type", FILES)
async def test_a_signed_file_names_request_model_revision_and_time(content_type: str, identity: Identity) -> None:
    """Whole and under our authority; an unsigned one says nothing; to somebody else we are others."""
    data = await signed(content_type, identity)
    found = await read(data, content_type, identity)
    assert (found.seal, found.made) == (Seal.OURS, MADE)
    assert (await read(FILES[content_type], content_type, identity)).seal is Seal.NONE
    with tempfile.TemporaryDirectory() as folder:
        stranger = load_or_create_identity(Path(folder) / "other", SystemClock().now())
        assert (await read(data, content_type, stranger)).seal is Seal.OTHERS


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "audio/wav"])
async def test_a_changed_file_breaks_its_seal(content_type: str, identity: Identity) -> None:
    """One bit of the picture or sound is enough."""
    data = bytearray(await signed(content_type, identity))
    place = len(data) - 2_000 if content_type != "audio/wav" else 2_000
    data[place] ^= 1
    assert (await read(bytes(data), content_type, identity)).seal is Seal.BROKEN


async def test_what_is_no_such_file_is_told_and_the_parent_goes_on(identity: Identity) -> None:
    """Garbage under each name, a cut file, and a kind that bears no manifest."""
    for content_type in FILES:
        with opened(b"not a file of that kind" * 100) as source, opened() as out, pytest.raises(c2pa.NotStamped):
            await c2pa.sign(source, out, content_type, MADE, identity)
    with opened(FILES["image/png"]) as source, opened() as out, pytest.raises(c2pa.NotStamped, match="image/gif"):
        await c2pa.sign(source, out, "image/gif", MADE, identity)
    assert (await read(FILES["image/png"], "image/gif", identity)).seal is Seal.NONE


async def test_a_file_that_takes_too_long_or_too_much_is_given_up(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's limits are its own: its end is told, nothing else happens."""
    monkeypatch.setattr(c2pa, "LIMITS", dataclasses.replace(c2pa.LIMITS, memory_bytes=1024 * 1024))
    data = FILES["image/png"] + bytes(8 * 1024 * 1024)
    with opened(data) as source, opened() as out, pytest.raises(c2pa.NotStamped):
        await c2pa.sign(source, out, "image/png", MADE, identity)


NAMES = st.sampled_from(["manifests", "active_manifest", "assertions", "x", "validation_state"])
STORES = st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(NAMES, inner))


@given(st.text(max_size=200) | STORES.map(json.dumps))
def test_whatever_a_stranger_wrote_is_never_ours(store: str) -> None:
    """Anything but the library's own word for a chain that ends at our authority."""
    assert read_manifest(store).seal is not Seal.OURS


def test_an_identity_is_made_once_kept_and_private(tmp_path: Path) -> None:
    """The second start reads what the first one made; what others may read, or does not fit, is refused."""
    now = SystemClock().now()
    first = load_or_create_identity(tmp_path, now)
    assert load_or_create_identity(tmp_path, now).chain == first.chain
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="ended"):
        load_or_create_identity(tmp_path, now + dt.timedelta(days=3_651))
    other = tmp_path / "other"
    load_or_create_identity(other, now)
    (tmp_path / "chain.pem").write_bytes((other / "chain.pem").read_bytes())
    with pytest.raises(UsageError, match="is not that of"):
        load_or_create_identity(tmp_path, now)
    (other / "key.pem").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_or_create_identity(other, now)


def test_workers_that_start_together_on_an_empty_folder_sign_with_one_key(tmp_path: Path) -> None:
    """One makes the files, the others wait for them; nobody meets the certificate of another's key."""
    now = SystemClock().now()
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(lambda _: load_or_create_identity(tmp_path / "new", now).chain, range(8)))
    assert len(set(found)) == 1
