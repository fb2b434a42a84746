"""Before any code of a model runs, its files are those that were admitted: with real workers and real children."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import dataclasses
import datetime as dt
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.artefacts import weights
from tests.artefacts.pickles import torch_zip
from tests.worker.harness import APP, Harness, running_worker, spec_of, until

from forestay.artefacts import signing
from forestay.artefacts.folder import measure_folder
from forestay.artefacts.report import Report
from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec import ArtefactSpec, LimitSpec, ModelSpec, MountDigest, PickleWaiver
from forestay.telemetry.metrics import ARTEFACT_FINDINGS

LIMITS = LimitSpec(startup_timeout_seconds=60, termination_grace_seconds=1)
FILES = {"app.py": APP, "weights/model.safetensors": weights.safetensors()}
FAR = dt.date(2099, 1, 1)


def asking(artefacts: ArtefactSpec, mounts: tuple[str, ...] = ()) -> ModelSpec:
    """Return a spec with an artefacts section."""
    return dataclasses.replace(spec_of(limits=LIMITS, data_mounts=mounts), artefacts=artefacts)


async def refusal(harness: Harness, revision: Revision) -> str:
    """Wait until the start has failed, and return why."""
    told: list[str] = []

    async def failed() -> bool:
        told.extend(replica.detail for replica in await harness.replicas(revision, ReplicaState.BACKOFF))
        return bool(told)

    await until(failed, "the start fails", 30)
    return told[0]


def unpacked(harness: Harness) -> pathlib.Path:
    """Return the folder in the worker's cache."""
    [folder] = [path for path in (harness.folder / "work" / "bundles").iterdir() if not path.suffix]
    return folder


async def stopped(harness: Harness, revision: Revision) -> None:
    """Take the replica away and wait until it is gone."""
    await harness.place(revision, 0)

    async def gone() -> bool:
        return not await harness.replicas(revision, ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.SETUP)

    await until(gone, "the replica is gone")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admitted() -> AsyncIterator[tuple[Harness, Revision]]:
    """A worker with a model whose files were admitted, for tests that leave it running again."""
    async with running_worker(start_backoff_seconds=1.0, start_backoff_cap_seconds=1.0) as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS), FILES)
        yield harness, revision


@pytest.mark.threat("ML10:2023", "AML.T0010")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("altered", "weights/model.safetensors"),
        ("added", "weights/more.safetensors"),
        ("missing", "app.py"),
        ("link", "app.py"),
    ],
)
async def test_a_change_in_the_cache_is_found_before_load(
    kind: str, name: str, admitted: tuple[Harness, Revision]
) -> None:
    """The start fails and names the file; the metric counts it; the next start unpacks the bundle anew."""
    harness, revision = admitted
    await harness.ready(revision)
    await stopped(harness, revision)
    folder = unpacked(harness)
    aside = folder.with_name(folder.name + ".altered")
    await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
    await asyncio.to_thread(_tamper, folder / name, kind)
    counted = harness.metrics.value(ARTEFACT_FINDINGS, kind, "load")
    await harness.place(revision, 1)
    told = await refusal(harness, revision)
    assert "not those that were admitted" in told
    assert f"{name}: {kind}" in told
    assert harness.metrics.value(ARTEFACT_FINDINGS, kind, "load") == counted + 1
    assert aside.is_dir()
    await harness.ready(revision)


def _tamper(path: pathlib.Path, kind: str) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "link":
        moved = path.rename(path.with_name("moved"))
        path.symlink_to(moved)
    elif kind == "added":
        path.write_bytes(b"")
    else:
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


async def test_a_bundle_that_was_never_examined_does_not_start() -> None:
    """The answer says what to do."""
    async with running_worker() as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS), FILES)
        harness.artefacts._reports.clear()
        await harness.place(revision, 0)
        await harness.place(revision, 1)
        assert "deploy the model again" in await refusal(harness, revision)


async def test_a_waiver_that_ends_ends_the_model() -> None:
    """What was admitted by a waiver starts until its day, and not after it."""
    files = {"app.py": APP, "model.pt": torch_zip()}
    for until_day, starts in ((FAR, True), (dt.date(2020, 1, 1), False)):
        waiver = PickleWaiver(("model.pt",), "old weights", until_day)
        async with running_worker() as harness:
            revision = await harness.deploy(asking(ArtefactSpec(allow_pickle=waiver)), files)
            if starts:
                await harness.ready(revision)
            else:
                assert "its waiver ended on 2020-01-01" in await refusal(harness, revision)


@pytest.mark.threat("ML06:2023", "AML.T0010")
async def test_where_signatures_are_required_only_signed_weights_start() -> None:
    """Unsigned: refused. Signed by a trusted key: starts. The key removed: refused again."""
    private, public = signing.make_key_pair()
    key = signing.read_public_key(public, "release")
    asked = asking(ArtefactSpec(signature="required", keys=("release",)))
    with tempfile.TemporaryDirectory() as name:
        text = _signature(pathlib.Path(name), private)
    async with running_worker() as harness:
        unsigned = await harness.deploy(asked, FILES)
        assert "covered by no signature of release" in await refusal(harness, unsigned)
        await harness.artefacts.trust(key, actor="human:test")
        files = {**FILES, "weights/model.sig": text}
        revision = await harness.deploy(asked, files, report=_with_signature(files, text))
        await harness.ready(revision)
        await stopped(harness, revision)
        await harness.artefacts.distrust("release", actor="human:test")
        await harness.place(revision, 1)
        told = await refusal(harness, revision)
    assert "is by a key that is not trusted here" in told
    assert "weights/model.safetensors: signature" in told


def _signature(folder: pathlib.Path, private: str) -> str:
    (folder / "weights").mkdir()
    (folder / "weights" / "model.safetensors").write_bytes(weights.safetensors())
    (folder / "key.pem").write_text(private)
    return signing.sign(measure_folder(folder / "weights")[0], "weights", folder / "key.pem")


def _with_signature(files: dict[str, str | bytes], text: str) -> Report:
    from tests.conformance.memory_artefacts import report_on  # noqa: PLC0415 - only here
    from tests.worker.harness import bundle_of  # noqa: PLC0415

    return dataclasses.replace(report_on(bundle_of(files)), signatures={"weights": text})


async def test_a_data_mount_is_measured_and_examined() -> None:
    """Its declared digest must be that of its files, and its files must be of admitted formats."""
    with tempfile.TemporaryDirectory(prefix="fm-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        (folder / "model.safetensors").write_bytes(weights.safetensors())
        digest = measure_folder(folder)[0].digest
        declared = asking(ArtefactSpec(mounts=(MountDigest(name, digest),)), mounts=(f"{name}:weights",))
        async with running_worker() as harness:
            revision = await harness.deploy(declared, {"app.py": APP})
            await harness.ready(revision)
            await stopped(harness, revision)
            (folder / "more.pt").write_bytes(torch_zip())
            await harness.place(revision, 1)
            assert f"declared is {digest}" in await refusal(harness, revision)
            pickled = ArtefactSpec(mounts=(MountDigest(name, measure_folder(folder)[0].digest),))
            other = await harness.deploy(asking(pickled, mounts=(f"{name}:weights",)), {"app.py": APP})
            assert f"{name}/more.pt" in await refusal(harness, other)
