"""Files from strangers: bombs are refused within their limits, honest files come through clean."""

import asyncio
import collections
import contextlib
import functools
import io
import os
import pathlib
import signal
import subprocess
import sys

import av
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from tests.ingress import bombs, good
from tests.ingress.good import Good
from tests.ingress.opening import FIRST, defused, fault_of, opened

from forestay.media.decode import Decoder, MediaRefused, open_scratch
from forestay.media.decoder_program import Ended
from forestay.media.limits import DecodeLimits
from forestay.media.opening import gif, jpeg, matroska, mp4, png, sound, tiff, webp
from forestay.media.opening.refusal import Refusal

MB = 1024 * 1024


@pytest.mark.threat("API4:2023", "ML01:2023")
async def test_no_bomb_is_opened_and_none_costs_much(decoder: Decoder, folder: pathlib.Path) -> None:
    """Each is refused in the words of its limit, quickly, in a small child, and the parent does not grow."""
    tally = await defused(decoder, folder, bombs.corpus())
    assert tally.failures == {}
    assert tally.child_memory_bytes <= 512 * MB
    assert tally.parent_growth_bytes <= 32 * MB


def test_both_corpora_are_as_large_as_they_claim_and_name_each_file_once() -> None:
    """Two files of one name would hide one of them."""
    names = collections.Counter([bomb.name for bomb in bombs.corpus()] + [file.name for file in good.files()])
    assert [name for name, count in names.items() if count > 1] == []
    assert len(bombs.corpus()) >= 60
    assert len(good.files()) + len(good.ways()) >= 50


async def test_honest_files_come_through_without_the_marks_of_their_makers(
    decoder: Decoder, folder: pathlib.Path
) -> None:
    """Place, author, comment, tags and whatever hides behind the end stay behind; size and frames are as they were."""
    failures: dict[str, str] = {}
    for file in good.files():
        try:
            data = file.build()
            clean, copy = await opened(decoder, folder, data, file.kind)
        except MediaRefused as error:
            failures[file.name] = error.message
            continue
        fault = fault_of(file, clean, copy)
        if fault is None and file.same_pixels and not same(file, data, copy):
            fault = "has other pixels than before"
        if fault:
            failures[file.name] = fault
    assert failures == {}


def same(file: Good, before: bytes, after: bytes) -> bool:
    """Tell whether two files decode alike."""
    if file.kind == "image":
        return pixels(before) == pixels(after)
    return decoded(before) == decoded(after)


def pixels(data: bytes) -> list[tuple[str, bytes]]:
    """Decode every frame of a picture."""
    with Image.open(io.BytesIO(data)) as image:
        return [(frame.mode, frame.tobytes()) for frame in ImageSequence.Iterator(image)]


def decoded(data: bytes) -> list[bytes]:
    """Decode every frame of a film or recording."""
    made: list[bytes] = []
    with av.open(io.BytesIO(data), "r") as container:
        pictures = [frame for stream in container.streams.video for frame in container.decode(stream)]
        made += [frame.to_image().tobytes() for frame in pictures]
    with av.open(io.BytesIO(data), "r") as container:
        sounds = [frame for stream in container.streams.audio for frame in container.decode(stream)]
        made += [bytes(plane) for frame in sounds for plane in frame.planes]
    return made


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_picture_that_a_camera_turned_stands_upright_afterwards(
    decoder: Decoder, folder: pathlib.Path, orientation: int
) -> None:
    """The Exif data that says how to turn it is gone, so the pixels must have been turned."""
    upright = good.picture()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's own numbers of the opposite turns
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    turned.save(data, format="PNG", exif=exif)
    _, copy = await opened(decoder, folder, data.getvalue(), "image")
    with Image.open(io.BytesIO(copy)) as image:
        assert image.tobytes() == upright.tobytes()
        assert dict(image.getexif()) == {}


async def test_a_colour_profile_is_kept(decoder: Decoder, folder: pathlib.Path) -> None:
    """Without it the same numbers mean other colours."""
    wanted = next(file for file in good.files() if file.name == "JPEG with profile").build()
    _, copy = await opened(decoder, folder, wanted, "image")
    with Image.open(io.BytesIO(wanted)) as before, Image.open(io.BytesIO(copy)) as after:
        assert after.info["icc_profile"] == before.info["icc_profile"]


@functools.cache
def noise() -> bytes:
    """Write a picture that takes a while to open."""
    data = io.BytesIO()
    Image.effect_noise((1_000, 1_000), 60).resize((4_000, 4_000)).save(data, format="PNG", compress_level=1)
    return data.getvalue()


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (DecodeLimits(wall_seconds=0.05), "wall_seconds"),
        (DecodeLimits(memory_bytes=8 * MB), "memory_bytes"),
        (DecodeLimits(max_output_bytes=1_000), "max_output_bytes"),
        (DecodeLimits(max_pixels=1_000_000), "max_pixels"),
        (DecodeLimits(max_side=3_000), "max_side"),
    ],
)
async def test_every_limit_of_the_child_is_held_and_named(
    folder: pathlib.Path, limits: DecodeLimits, limit: str
) -> None:
    """Time, memory, output, pixels: what is exceeded stands in the refusal, for caller and operator."""
    decoder = Decoder(limits)
    try:
        with pytest.raises(MediaRefused) as refused:
            await opened(decoder, folder, noise(), "image")
        assert (refused.value.limit, refused.value.allowed > 0) == (limit, True)
    finally:
        await decoder.close()


async def test_what_comes_as_one_kind_is_not_taken_for_another(decoder: Decoder, folder: pathlib.Path) -> None:
    """A field that wants a film gets no picture, whatever its name says."""
    with pytest.raises(MediaRefused, match=r"image/gif is no video; send MP4, MOV"):
        await opened(decoder, folder, FIRST, "video")


async def until_lost(decoder: Decoder) -> None:
    """Wait until the end of the program has been noticed."""
    program = decoder._program
    assert program is not None
    ended = asyncio.Event()
    lose = program._lose
    program._lose = lambda: (lose(), ended.set())[0]
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_decoder_that_was_killed_is_there_for_the_next_file(decoder: Decoder, folder: pathlib.Path) -> None:
    """The program is started again; only what it ran at that moment is refused."""
    pids: list[int] = []
    decoder._on_start = lambda pid, _: pids.append(pid)
    await opened(decoder, folder, FIRST)
    async with asyncio.TaskGroup() as group:
        group.create_task(until_lost(decoder))
        os.kill(pids[0], signal.SIGKILL)
    clean, _ = await opened(decoder, folder, FIRST)
    assert (clean.content_type, len(pids)) == ("image/gif", 2)


async def test_whoever_stops_waiting_leaves_nothing_running(decoder: Decoder, folder: pathlib.Path) -> None:
    """A caller that goes away takes its child along, and the next file is served."""
    await opened(decoder, folder, FIRST)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await opened(decoder, folder, noise())
    clean, _ = await opened(decoder, folder, FIRST)
    assert clean.content_type == "image/gif"


def said_of(kind: str, content_type: str) -> bytes:
    """Write the answer of a child."""
    values = {"kind": kind, "content_type": content_type, "width": 1, "height": 1, "frames": 1, "seconds": 0}
    return msgspec.json.encode({"opened": values})


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no json",
        b"{}",
        b'{"opened": {"kind": "image"}}',
        said_of("image", "text/html"),
        said_of("video", "video/mp4"),
        said_of("image", "audio/wav"),
        said_of("weights", "image/png"),
    ],
)
def test_the_word_of_a_child_that_was_taken_over_is_not_believed(said: bytes, folder: pathlib.Path) -> None:
    """Other kinds and other types than those that are opened cannot come back, whatever the child writes."""
    with open_scratch(folder) as out:
        out.write(b"<script>")
        out.flush()
        with pytest.raises(MediaRefused):
            Decoder()._judged(said, Ended(0, 0, 0.0), out, "image")


PROBE = """
import json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from forestay.media.limits import DecodeLimits
from forestay.media.opening import sandbox
isolation = sandbox.prepare()
ours, theirs = os.pipe()
if not os.fork():
    sandbox.enter(7, 0, DecodeLimits(), isolation)
    def tried(act):
        try:
            act()
        except OSError as error:
            return type(error).__name__
        return "allowed"
    said = {
        "read": tried(lambda: os.open("/etc/passwd", os.O_RDONLY)),
        "write": tried(lambda: os.open("/tmp/x", os.O_WRONLY | os.O_CREAT)),
        "socket": tried(lambda: socket.socket()),
        "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
        "fork": tried(lambda: os.fork()),
        "run": tried(lambda: os.execv("/bin/true", ["true"])),
        "kill": tried(lambda: os.kill(os.getppid(), 0)),
        "link": tried(lambda: os.symlink("/etc/passwd", "/tmp/y")),
        "uid": os.getuid(),
        "groups": "allowed" if os.getuid() == 0 else "left",
    }
    os.write(theirs, json.dumps(said).encode())
    os._exit(0)
os.wait()
print(json.dumps({"isolation": isolation.__class__.__name__, "calls": isolation.calls, "user": isolation.user,
                  "said": json.loads(os.read(ours, 65536))}))
"""


@pytest.mark.threat("API4:2023", "ML01:2023")
@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is the kernel's of Linux")
def test_a_child_that_was_taken_over_reaches_nothing() -> None:
    """No file, no network, no program, no other process, and not our user."""
    source = str(pathlib.Path(good.__file__).resolve().parents[2] / "src")
    done = subprocess.run([sys.executable, "-I", "-c", PROBE, source], capture_output=True, check=True, timeout=60)
    told = msgspec.json.decode(done.stdout)
    assert told["calls"]
    said = told["said"]
    uid = said.pop("uid")
    assert {name for name, what in said.items() if what == "allowed"} == set()
    assert not told["user"] or uid >= 1_100_000


WALKS = {
    "PNG of six frames": png.walk,
    "JPEG progressive": jpeg.walk,
    "GIF of six frames": gif.walk,
    "WEBP of six frames": webp.walk,
    "TIFF of six frames": tiff.walk,
    "MP4 MPEG-4": mp4.walk,
    "WebM VP8 with Opus": matroska.walk,
    "WAV of format 1 in 16 bits": sound.walk_wav,
    "FLAC with a picture": sound.walk_flac,
    "MP3 with tags before and after": sound.walk_mp3,
    "Ogg Opus": sound.walk_ogg,
}
SAMPLES = {file.name: file for file in good.files() if file.name in WALKS}


@pytest.mark.parametrize("name", WALKS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_walked_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    """No reader runs off the end, loops, or says anything but why."""
    damaged = bytearray(SAMPLES[name].build())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))]) if data.draw(st.booleans()) else bytes(damaged)
    with contextlib.suppress(Refusal):
        assert WALKS[name](cut, DecodeLimits()).content_type
