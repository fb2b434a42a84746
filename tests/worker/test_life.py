"""The worker's own life: starts that fail, unfit replicas, going in good order, built environments."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import json
import pathlib
import tempfile
import zipfile

from tests.worker.harness import APP, Harness, running_process, running_worker, spec_of, until

from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec import LimitSpec
from forestay.queue.model import Outcome, State

LIMITS = LimitSpec(max_multiplexing=2, startup_timeout_seconds=30, termination_grace_seconds=2)

SICK = """
import os
import fal
from pydantic import BaseModel
class Out(BaseModel):
    checks: int = 0
class Sick(fal.App, name="sick"):
    checks = 0
    sick = False
    @fal.endpoint("/")
    def run(self) -> Out:
        self.sick = self.checks > 0
        return Out(checks=self.checks)
    @fal.endpoint("/check", health_check=fal.HealthCheck(timeout_seconds=1, failure_threshold=2))
    def check(self) -> Out:
        if self.sick:
            raise fal.exceptions.AppException("the device is gone", 500)
        self.checks += 1
        return Out()
"""

FLAKY = """
import os, pathlib
import fal
class Flaky(fal.App, name="flaky"):
    def setup(self):
        mark = pathlib.Path(os.environ["MARK"])
        if not mark.exists():
            mark.touch()
            raise RuntimeError("not the first time")
    @fal.endpoint("/")
    def run(self) -> dict:
        return {}
"""

NEEDY = """
import fal, tinydep
class Needy(fal.App, name="needy"):
    @fal.endpoint("/")
    def run(self) -> dict:
        return {"answer": tinydep.ANSWER}
"""


async def test_a_start_that_failed_is_told_and_tried_again_after_a_wait() -> None:
    """The fleet sees back-off with the reason; the next start succeeds."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o777)  # the model is another user, and sees this folder because it is mounted
        async with running_worker(start_backoff_seconds=0.6) as harness:
            seen = (f"{name}:seen",)
            spec = spec_of(app="app.py::Flaky", limits=LIMITS, env={"MARK": "seen/mark"}, data_mounts=seen)
            revision = await harness.deploy(spec, {"app.py": FLAKY})

            async def waiting() -> bool:
                found = await harness.replicas(revision, ReplicaState.BACKOFF)
                return bool(found) and "not the first time" in found[0].detail and found[0].failures == 1

            await until(waiting, "the back-off is told", LIMITS.startup_timeout_seconds)
            await harness.ready(revision)
            assert await harness.replicas(revision, ReplicaState.BACKOFF) == []


async def test_a_replica_that_fails_its_health_checks_is_replaced() -> None:
    """Fal's HealthCheck settings: checked regularly, replaced after the threshold."""
    async with running_worker(health_seconds=0.2) as harness:
        revision = await harness.deploy(spec_of(app="app.py::Sick", limits=LIMITS), {"app.py": SICK})
        before = (await harness.ready(revision))[0].replica_id

        async def checked() -> bool:
            return bool(json.loads((await harness.run({})).answer.body)["checks"])

        await until(checked, "it was found healthy at least once", 10)

        async def replaced() -> bool:
            found = await harness.replicas(revision, ReplicaState.READY)
            return any(item.replica_id != before for item in found)

        await until(replaced, "another replica is ready", 15)


async def test_a_stopping_worker_gives_back_for_free_what_it_cannot_finish() -> None:
    """SIGTERM: what ends within the drain time ends, the rest is queued again without being charged."""
    async with running_worker(drain_seconds=0.5) as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS), {"app.py": APP})
        await harness.ready(revision)
        quick = await harness.submit({"do": "sleep", "seconds": 0.3})
        slow = await harness.submit({"do": "sleep", "seconds": 20})
        await until(lambda: _all(harness, [quick, slow], State.RUNNING), "both run")
        stopped_at = harness.clock.monotonic()
    assert harness.clock.monotonic() - stopped_at < 8
    assert (await harness.result(quick)).snapshot.state is State.SUCCEEDED
    assert await _all(harness, [slow], State.QUEUED)
    assert next(fact[2] for fact in harness.queue.attempt_facts if fact[0] == slow) is Outcome.PLATFORM
    assert (await harness.fleet.load()).workers == {}


async def test_a_request_given_back_runs_on_the_next_worker() -> None:
    """The second life of the worker finishes what the first could not."""
    async with running_worker(drain_seconds=0.0) as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS), {"app.py": APP})
        await harness.ready(revision)
        request_id = await harness.submit({"do": "sleep", "seconds": 1.0})
        await until(lambda: _all(harness, [request_id], State.RUNNING), "it runs")
    harness.folder.mkdir()
    try:
        (harness.folder / "objects").mkdir()
        async with running_process(harness):
            again = await harness.deploy(spec_of(limits=LIMITS), {"app.py": APP})
            await harness.ready(again)
            stored = await harness.result(request_id, 20)
    finally:
        await asyncio.to_thread(_remove, harness.folder)
    assert (stored.snapshot.state, stored.snapshot.attempt) == (State.SUCCEEDED, 2)


async def test_requirements_are_built_once_into_an_environment_of_their_own() -> None:
    """A package that the interpreter lacks is installed beside it; the SDK of the parent stays visible."""
    with tempfile.TemporaryDirectory() as name:
        wheel = await asyncio.to_thread(_wheel, pathlib.Path(name))
        async with running_worker() as harness:
            limits = LimitSpec(startup_timeout_seconds=60)  # an environment and pip cost several starts
            spec = spec_of(app="app.py::Needy", limits=limits, requirements=(f"tinydep @ file://{wheel}",))
            revision = await harness.deploy(spec, {"app.py": NEEDY})
            await harness.ready(revision, seconds=60)
            assert json.loads((await harness.run({})).answer.body) == {"answer": 42}
            built = list((harness.folder / "work" / "environments").glob("*.complete"))
            assert len(built) == 1


async def test_a_requirement_that_does_not_exist_is_told_with_pips_words() -> None:
    """The back-off's detail ends with what pip said."""
    with tempfile.TemporaryDirectory() as name:
        async with running_worker() as harness:
            spec = spec_of(app="app.py::Needy", limits=LIMITS, requirements=(f"tinydep @ file://{name}/absent.whl",))
            revision = await harness.deploy(spec, {"app.py": NEEDY})

            async def told() -> bool:
                found = await harness.replicas(revision, ReplicaState.BACKOFF)
                return bool(found) and "could not install the requirements" in found[0].detail

            await until(told, "pip's failure is told", 30)


async def test_what_a_worker_does_not_hold_is_not_claimed() -> None:
    """A request for a revision placed elsewhere waits."""
    async with running_worker() as harness:
        revision: Revision = await harness.deploy(spec_of(limits=LIMITS), {"app.py": APP}, replicas=0)
        request_id = await harness.submit({"text": "x"})
        await asyncio.sleep(0.5)
        assert await harness.replicas(revision) == []
        assert await _all(harness, [request_id], State.QUEUED)


async def _all(harness: Harness, request_ids: list[object], state: State) -> bool:
    found = await harness.queue.snapshots(request_ids)  # type: ignore[arg-type]
    return len(found) == len(request_ids) and all(item.state is state for item in found.values())


def _remove(folder: pathlib.Path) -> None:
    import shutil  # noqa: PLC0415 - only here

    shutil.rmtree(folder, ignore_errors=True)


def _wheel(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "tinydep-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinydep.py", "ANSWER = 42\n")
        wheel.writestr("tinydep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        wheel.writestr("tinydep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinydep-1.0.dist-info/RECORD", "")
    return path
