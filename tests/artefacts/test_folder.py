"""Folders and tars: the same files are seen in both, links are not followed, and a change is found by name."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.artefacts import weights
from tests.artefacts.pickles import tar

from forestay.artefacts.findings import FlawKind
from forestay.artefacts.folder import Examination, examine_path, examine_tar, measure_folder
from forestay.artefacts.manifest import FileEntry, decide_differences, from_bytes, manifest_of, to_bytes
from forestay.artefacts.source import BytesSource

FILES = {"app.py": b"print()\n", "weights/model.safetensors": weights.safetensors(), "weights/config.json": b"{}\n"}
entries = st.builds(
    FileEntry, st.sampled_from(["a", "b/c", "d"]), st.integers(0, 9), st.sampled_from(["0" * 64, "1" * 64])
)
manifests = st.lists(entries, unique_by=lambda entry: entry.name).map(manifest_of)


def written(folder: Path) -> Path:
    """Write the files."""
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def kinds(seen: Examination) -> dict[str, FlawKind]:
    """Return the first flaw of each file."""
    return {item.file: item.kind for item in reversed(seen.findings)}


def test_a_folder_and_its_tar_have_the_same_manifest(tmp_path: Path) -> None:
    """What is examined as a tar at import is compared with a folder at load."""
    seen, sent = examine_path(written(tmp_path)), examine_tar(BytesSource(tar(FILES)))
    assert seen.manifest == sent.manifest == measure_folder(tmp_path)[0]
    assert seen.findings == sent.findings == ()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_findings(kind: bytes) -> None:
    """A bundle holds plain files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo("thing")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert kinds(examine_tar(BytesSource(target.getvalue()))) == {"thing": FlawKind.LINK}


def test_a_name_twice_or_one_that_leads_out_is_a_finding() -> None:
    """Two readers of the tar must see the same files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in ("a.txt", "a.txt", "../b.txt", "/c.txt"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    found = kinds(examine_tar(BytesSource(target.getvalue())))
    assert found == {"a.txt": FlawKind.TWICE, "../b.txt": FlawKind.NAME, "/c.txt": FlawKind.NAME}


def test_what_is_no_tar_is_a_finding() -> None:
    """And no exception."""
    assert examine_tar(BytesSource(b"no tar at all" * 100)).findings[0].kind is FlawKind.HEADER


def test_a_pipe_in_a_folder_is_not_opened(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert kinds(examine_path(tmp_path)) == {"pipe": FlawKind.LINK}


@given(manifests, manifests)
def test_differences_are_exactly_what_differs(before: object, after: object) -> None:
    """Two manifests are the same when their digests are, and each difference names one file."""
    found = decide_differences(before, after)  # type: ignore[arg-type]
    assert (not found) == (before == after) == (before.digest == after.digest)  # type: ignore[attr-defined]
    assert len({item.file for item in found}) == len(found)


@given(manifests)
def test_a_manifest_survives_the_store(manifest: object) -> None:
    """What is written is what is read."""
    assert from_bytes(to_bytes(manifest)) == manifest  # type: ignore[arg-type]


@pytest.mark.threat("ML10:2023", "AML.T0010")
@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("weights/model.safetensors", FILES["weights/model.safetensors"][:-1] + b"\1", FlawKind.ALTERED),
        ("weights/more.safetensors", b"", FlawKind.ADDED),
        ("weights/config.json", None, FlawKind.MISSING),
        ("app.py", b"print(1)\n", FlawKind.ALTERED),
    ],
)
def test_one_change_is_found_with_its_file(name: str, data: bytes | None, kind: FlawKind, tmp_path: Path) -> None:
    """One byte, one file more, one file less."""
    before, _ = measure_folder(written(tmp_path))
    if data is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(data)
    found = decide_differences(before, measure_folder(tmp_path)[0])
    assert [(item.file, item.kind) for item in found] == [(name, kind)]


def test_a_link_in_place_of_a_file_is_found(tmp_path: Path) -> None:
    """Even one that leads to the very same bytes."""
    written(tmp_path)
    model = tmp_path / "weights/model.safetensors"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    _, findings = measure_folder(tmp_path)
    assert [(item.file, item.kind) for item in findings] == [("weights/model.safetensors", FlawKind.LINK)]
