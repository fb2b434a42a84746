"""The limited child: it answers, it keeps its limits, and what breaks it is not admitted."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.artefacts import weights
from tests.artefacts.pickles import called_stacked, stored, tar, torch_zip

from forestay.artefacts import limited, program
from forestay.artefacts.findings import FlawKind
from forestay.artefacts.limited import ExaminationFailed

LIMITS = """
import resource
from forestay.artefacts.program import limit_this_process
limit_this_process()
print([resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)])
"""


async def test_a_bundle_is_examined_in_another_process(tmp_path: Path) -> None:
    """With formats, findings, signatures and the manifest."""
    path = tmp_path / "bundle.tar"
    path.write_bytes(tar({"app.py": b"x = 1\n", "w/m.safetensors": weights.safetensors(), "w/model.sig": b"{}"}))
    report = await limited.examine(path, tar=True)
    assert [(file.name, file.format) for file in report.files] == [
        ("app.py", "text"),
        ("w/m.safetensors", "safetensors"),
        ("w/model.sig", "text"),
    ]
    assert report.findings == ()
    assert report.signatures == {"w": "{}"}


async def test_a_second_reader_is_asked_about_what_is_waived(tmp_path: Path) -> None:
    """Fickling agrees on plain tensors, and not on what it sees called."""
    (tmp_path / "good.pt").write_bytes(torch_zip())
    (tmp_path / "bad.pkl").write_bytes(called_stacked("os system"))
    report = await limited.examine(tmp_path, opinions=("good.pt", "bad.pkl"))
    assert report.opinions["good.pt"] == ()
    assert {item.kind for item in report.opinions["bad.pkl"]} == {FlawKind.OPINION}
    assert len(report.findings_with(("bad.pkl",))) > len(report.findings)


async def test_libraries_are_asked_about_everything_on_request(tmp_path: Path) -> None:
    """The formats' own readers open what is honest."""
    (tmp_path / "m.safetensors").write_bytes(weights.safetensors())
    (tmp_path / "m.gguf").write_bytes(weights.gguf())
    report = await limited.examine(tmp_path, opinions=(program.EVERYTHING,))
    assert report.opinions == {"m.safetensors": (), "m.gguf": ()}


async def test_what_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A child that ends in an error admits nothing."""
    with pytest.raises(ExaminationFailed, match="could not examine nowhere"):
        await limited.examine(tmp_path / "nowhere")


async def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    """The time-out holds, and the child is gone afterwards."""
    os.mkfifo(tmp_path / "pipe.tar")  # opening it for reading does not wait, but there is nothing to examine
    with pytest.raises(ExaminationFailed, match=r"within 0\.01 s"):
        await limited.examine(tmp_path / "pipe.tar", tar=True, timeout_seconds=0.01)
    children = await asyncio.to_thread(subprocess.run, ["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert children.stdout == b""


def test_the_child_takes_its_limits_before_it_reads() -> None:
    """Memory, processor time and core dumps are bounded."""
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", LIMITS], capture_output=True, check=True, text=True, env=environment)
    assert done.stdout.strip() == f"[{program.MEMORY_BYTES}, {program.CPU_SECONDS}, 0]"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != program.MEMORY_BYTES


async def test_a_bomb_is_told_and_not_unpacked(tmp_path: Path) -> None:
    """An archive in an archive is refused as such, whatever it would unpack to."""
    inner = stored({"zeros": bytes(1 << 20)}, method=8)
    (tmp_path / "bomb.zip").write_bytes(stored({f"{number}.zip": inner for number in range(100)}))
    report = await limited.examine(tmp_path)
    assert {item.kind for item in report.findings} == {FlawKind.ARCHIVE}
