"""From a made file to the answer that we made it: every layer by itself, with real files."""

import datetime as dt
import io
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
from PIL import Image
from tests.safety.hashes.drawn import drawn
from tests.safety.provenance.files import FILES, coded

from forestay.clock import SystemClock
from forestay.media.decode import Decoder
from forestay.safety.hashes.pdq import hash_of
from forestay.safety.provenance.fingerprints import Fingerprint, PostgresFingerprints
from forestay.safety.provenance.identity import load_or_create_identity
from forestay.safety.provenance.made import Origin, Origins, Strength
from forestay.safety.provenance.manifest import Made
from forestay.safety.provenance.stamp import Stamped, Stamps, Wishes, mark_id_of
from forestay.safety.provenance.watermark import Watermark
from forestay.storage.postgres import Database

NOW = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
ALL = Wishes(manifest=True, watermark=True, fingerprint=True)


def made(media_id: str = "m" * 32) -> Made:
    """Something made."""
    return Made("r-1", "acme/pictures", "rev-7", media_id, NOW)


def opened(data: bytes = b"") -> IO[bytes]:
    """A real file."""
    file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - whoever asks closes it
    file.write(data)
    file.flush()
    return file


class Desk:
    """Stamps and asks, on one database."""

    def __init__(self, database: Database, decoder: Decoder, folder: Path) -> None:
        identity = load_or_create_identity(folder, SystemClock().now())
        parts = (decoder, PostgresFingerprints(database), identity, Watermark("a key of the tests"))
        self.stamps, self.origins = Stamps(*parts), Origins(*parts)
        self.bare = Stamps(decoder, PostgresFingerprints(database), None, None)

    async def stamped(self, content_type: str, wishes: Wishes, data: bytes = b"") -> tuple[Stamped, bytes]:
        """Stamp a file, and return it."""
        with opened(data or FILES[content_type]) as source, opened() as out:
            done = await self.stamps.put(source, out, content_type, made(), wishes)
            out.seek(0)
            return done, out.read()

    async def origin(self, data: bytes) -> Origin:
        """Ask about a file."""
        with opened(data) as file:
            return await self.origins.of(file)


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk with an identity and a key."""
    decoder = Decoder()
    yield Desk(database, decoder, tmp_path / "provenance")
    await decoder.close()


def layers(origin: Origin) -> list[tuple[str, Strength]]:
    """Which layers hold, and how strongly."""
    return [(item.layer, item.strength) for item in origin.evidence]


async def test_a_picture_bears_all_three_and_each_answers_with_request_model_revision_and_time(desk: Desk) -> None:
    """As it was released: proof, a strong sign, and a likeness."""
    done, data = await desk.stamped("image/png", ALL)
    assert done == Stamped(manifest=True, mark_id=mark_id_of(made().media_id), fingerprints=1)
    origin = await desk.origin(data)
    assert layers(origin) == [
        ("manifest", Strength.PROOF), ("watermark", Strength.STRONG), ("fingerprint", Strength.LIKELY)
    ]  # fmt: skip
    assert {item.made for item in origin.evidence} == {made()}


async def test_a_copy_without_its_manifest_is_known_by_mark_and_likeness(desk: Desk) -> None:
    """Coded anew at three quarters of its size and turned, as a platform or a screenshot would."""
    _, data = await desk.stamped("image/jpeg", ALL)
    image = Image.open(io.BytesIO(data)).resize((384, 288)).transpose(Image.Transpose.ROTATE_180)
    copy = io.BytesIO()
    image.save(copy, "JPEG", quality=80)
    origin = await desk.origin(copy.getvalue())
    assert [layer for layer, _ in layers(origin)] == ["watermark", "fingerprint"]
    assert {item.made for item in origin.evidence} == {made()}


@pytest.mark.parametrize("content_type", ["audio/wav", "video/mp4"])
async def test_films_and_recordings_bear_a_manifest_and_films_are_known_by_their_frames(
    desk: Desk, content_type: str
) -> None:
    """A watermark is asked for in vain, and the answer says so."""
    done, data = await desk.stamped(content_type, ALL)
    assert done.manifest
    assert [problem for problem in done.problems if "no watermark" in problem]
    assert layers(await desk.origin(data))[0] == ("manifest", Strength.PROOF)
    if content_type == "video/mp4":
        assert done.fingerprints > 0
        bare = [layer for layer, _ in layers(await desk.origin(FILES[content_type]))]
        assert bare == ["fingerprint"]


async def test_a_file_that_we_did_not_make_is_known_by_nothing(desk: Desk) -> None:
    """Another picture, a text, and an empty file."""
    await desk.stamped("image/png", ALL)
    for data in (coded(drawn(40, 400, 300), "PNG"), b"a text", b""):
        assert (await desk.origin(data)).evidence == ()


async def test_a_changed_picture_with_our_manifest_is_told_as_broken(desk: Desk) -> None:
    """Its likeness still tells where it comes from."""
    _, data = await desk.stamped("image/jpeg", Wishes(watermark=False))
    broken = bytearray(data)
    broken[-20] ^= 1
    origin = await desk.origin(bytes(broken))
    assert "manifest" not in [layer for layer, _ in layers(origin)]
    assert any("not what was signed" in note for note in origin.notes)


async def test_what_cannot_be_added_is_said_and_the_file_goes_through_as_it_is(desk: Desk) -> None:
    """Without identity and key; and with a file that is not what it says."""
    with opened(FILES["image/png"]) as source, opened() as out:
        done = await desk.bare.put(source, out, "image/png", made(), ALL)
        out.seek(0)
        assert out.read() == FILES["image/png"]
    assert len(done.problems) == 2
    assert done.fingerprints == 1
    done, data = await desk.stamped("image/png", ALL, b"not a picture at all")
    assert data == b"not a picture at all"
    assert not done.manifest
    assert len(done.problems) == 3


async def test_transparent_pictures_keep_their_transparency(desk: Desk) -> None:
    """They get no watermark, rather than a white ground."""
    clear = np.dstack([drawn(41, 300, 300), np.full((300, 300), 128, np.uint8)])
    done, data = await desk.stamped("image/png", ALL, coded(clear, "PNG"))
    assert done.mark_id is None
    assert Image.open(io.BytesIO(data)).mode == "RGBA"


async def test_likeness_is_found_exactly_within_its_distance(database: Database) -> None:
    """The database's search agrees with counting bits, up to 31 and not beyond."""
    store = PostgresFingerprints(database)
    base = hash_of(drawn(3, 512, 384))
    chance = np.random.default_rng(4)
    kept: dict[str, int] = {}
    for number in range(60):
        bits = chance.choice(256, size=int(chance.integers(0, 40)), replace=False)
        kept[f"m{number}"] = base.value ^ sum(1 << int(bit) for bit in bits)
    prints = [Fingerprint(made(name), type(base)(value)) for name, value in kept.items()]
    await store.keep(prints)
    await store.keep(prints)
    for radius in (5, 12):
        expected = {name for name, value in kept.items() if (value ^ base.value).bit_count() <= radius}
        assert {alike.made.media_id for alike in await store.near(base.value, radius)} == expected
    edge = {name: (value ^ base.value).bit_count() for name, value in kept.items()}
    nearest = sorted(distance for distance in edge.values() if distance <= 31)[:20]
    assert [alike.distance for alike in await store.near(base.value)] == nearest
    assert await store.forget(0.0, 100) == 0  # made in the future of the database's clock
