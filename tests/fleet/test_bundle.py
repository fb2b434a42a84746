"""Bundles: what goes in, and that the same content gives the same bytes."""

import dataclasses
import hashlib
import io
import os
import pathlib
import tarfile

import pytest
from tests.conformance.fleet_values import spec_of

from forestay.errors import UsageError
from forestay.fleet.bundle import BundlePlan, plan_bundle, revision_digest, revision_id_of, write_bundle
from forestay.fleet.spec import HostKind, HostSpec, ModelSpec


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A model's folder with things that belong in a bundle and things that do not."""
    model = tmp_path / "models" / "digits"
    for name in ("app.py", "weights/unet.bin", "__pycache__/app.pyc", ".git/config", "runs/1.log", "data/big.npz"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    (model / ".forestayignore").write_text("# outputs\nruns/\n/data/*.npz\n")
    return model


def spec(*include: str, app: str = "app.py::App") -> ModelSpec:
    """A spec with these includes."""
    plain = spec_of()
    return dataclasses.replace(plain, host=dataclasses.replace(plain.host, app=app, include=include))


def names(plan: BundlePlan) -> list[str]:
    """The names inside."""
    return [file.name for file in plan.files]


def build(plan: BundlePlan) -> tuple[bytes, str]:
    """The tar's bytes and the digest reported."""
    target = io.BytesIO()
    digest = write_bundle(plan, target)
    return target.getvalue(), digest


def test_hidden_cached_and_ignored_files_stay_out(folder: pathlib.Path) -> None:
    """Only code and weights travel."""
    assert names(plan_bundle(spec(), folder)) == ["app.py", "weights/unet.bin"]


def test_what_lies_beside_the_folder_keeps_its_place(folder: pathlib.Path) -> None:
    """The root moves up to the common parent, and the app's path with it."""
    (folder.parent / "shared").mkdir()
    (folder.parent / "shared" / "text.py").write_text("x")
    plan = plan_bundle(spec("../shared"), folder)
    assert names(plan) == ["digits/app.py", "digits/weights/unet.bin", "shared/text.py"]
    assert plan.spec.host.app == "digits/app.py::App"


def test_the_same_content_gives_the_same_bytes(folder: pathlib.Path) -> None:
    """Times and owners do not matter; the digest is of the bytes."""
    first, digest = build(plan_bundle(spec(), folder))
    os.utime(folder / "app.py", (1, 1))
    second, again = build(plan_bundle(spec(), folder))
    assert (first, digest) == (second, again)
    assert digest == hashlib.sha256(first).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(entry.mtime, entry.uid, entry.uname) for entry in tar} == {(0, 0, "")}
        content = tar.extractfile("weights/unet.bin")
        assert content is not None
        assert content.read() == b"weights/unet.bin"


def test_content_or_settings_change_the_revision(folder: pathlib.Path) -> None:
    """Either alone makes another revision id."""
    plan = plan_bundle(spec(), folder)
    _, digest = build(plan)
    base = revision_digest(plan.spec, digest)
    assert revision_digest(dataclasses.replace(plan.spec, description="other"), digest) != base
    (folder / "app.py").write_text("changed")
    _, changed = build(plan_bundle(spec(), folder))
    assert revision_digest(plan.spec, changed) != base
    assert revision_id_of(plan.spec.model_id, base) == f"digits-{base[:12]}"


def test_a_link_out_of_the_bundle_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A bundle never carries a file from elsewhere on the machine."""
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="leads outside"):
        plan_bundle(spec(), folder)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [(spec(app="missing.py::App"), "host.app"), (spec("../nowhere"), "host.include")],
)
def test_what_is_missing_is_named(folder: pathlib.Path, wrong: ModelSpec, field: str) -> None:
    """The error names the field to mend."""
    with pytest.raises(UsageError) as caught:
        plan_bundle(wrong, folder)
    assert caught.value.field == field


def test_a_bundle_has_a_size_cap(folder: pathlib.Path) -> None:
    """The message says how to leave things out."""
    with pytest.raises(UsageError, match="forestayignore"):
        plan_bundle(spec(), folder, max_bytes=10)


def test_a_model_without_code_has_no_files(folder: pathlib.Path) -> None:
    """Servers and providers need no bundle."""
    plain = dataclasses.replace(spec_of(), host=HostSpec(HostKind.HTTP_SERVER, url="http://127.0.0.1:9"))
    assert plan_bundle(plain, folder).files == ()
