"""Game days in a worker: faults reach a real model's process where the operator allows it, and leave it again."""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence

import pytest
from tests.worker.harness import WORKER, spec_of, until
from tests.worker.test_fal_app import hosted
from tests.worker.test_probe import APP

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.drills.model import Drill, Sighting
from forestay.errors import Unavailable
from forestay.fleet.model import ReplicaState, Revision
from forestay.ids import ReplicaId, RevisionId, WorkerId, new_request_id
from forestay.settings import Worker
from forestay.worker.drilling import Drilling
from forestay.worker.hosts.fal_app import FalAppHost
from forestay.worker.hosts.host import Answered, CallRequest
from forestay.worker.replica import Replica

STEPS = APP.replace('return "drawn"', "return str(num_inference_steps)")


async def steps_of(host: FalAppHost) -> bytes:
    """Call the app, which says with how many steps its pipeline was called."""
    request_id = new_request_id(SystemClock().now(), 0, SystemChance())
    answer = await host.call(
        CallRequest(request_id, 1, "/", {"content-type": "application/json"}, b'{"prompt": "x"}', timeout_seconds=10)
    )
    assert isinstance(answer, Answered)
    return answer.body


async def said_by(host: FalAppHost, wanted: Mapping[str, str]) -> None:
    """Wait until the model's process says that of its faults."""

    async def said() -> bool:
        return host.drilled() == wanted

    await until(said, f"the process says {wanted}")


async def test_a_fault_reaches_a_running_model_and_leaves_it_again() -> None:
    """Between two calls, in the process itself; one that this model cannot have is told with its reason."""
    app = STEPS.replace("num_inference_steps=2", "num_inference_steps=9")
    async with hosted(spec_of(app="app.py::Probed"), app=app, drills=True) as (host, _, folder, _):
        assert (folder / "run" / "drills" / "faults.py").exists()
        assert b'"9"' in await steps_of(host)
        host.drill(["2 steps", "seam between tiles"])
        await said_by(
            host, {"2 steps": "", "seam between tiles": "AttributeError: 'Pipe' object has no attribute 'vae'"}
        )
        assert b'"2"' in await steps_of(host)
        host.drill([])
        await said_by(host, {})
        assert b'"9"' in await steps_of(host)


@pytest.mark.threat("API5:2023", "ML09:2023")
async def test_where_the_operator_allows_no_drills_there_is_no_fault_to_put_in() -> None:
    """Whatever is said over the control socket, nobody obeys, and the faults are not even in the folder."""
    async with hosted(spec_of(app="app.py::Probed"), app=STEPS) as (host, _, folder, _):
        assert not (folder / "run" / "drills").exists()
        host.drill(["one step less"])
        assert b'"2"' in await steps_of(host)
        assert host.drilled() == {}


class Drills:
    """A store of one drill."""

    def __init__(self, drill: Drill) -> None:
        self.drill = drill
        self.away = False
        self.seen: list[Sighting] = []

    async def start(self, drill: Drill) -> None:
        """Take it."""
        self.drill = drill

    async def standing(self, since: dt.datetime) -> list[Drill]:
        """Return it, unless the database is away."""
        if self.away:
            raise Unavailable("no database")
        return [self.drill] if self.drill.ends_at > since else []

    async def stop(self, drill_id: str, now: dt.datetime) -> bool:
        """Nobody asks."""
        raise NotImplementedError

    async def note(self, seen: Sequence[Sighting]) -> None:
        """Take it."""
        self.seen += seen

    async def sightings(self, drill_ids: Sequence[str]) -> list[Sighting]:
        """Return all."""
        del drill_ids
        return self.seen


class Host:
    """A host that obeys at once."""

    def __init__(self) -> None:
        self.orders: list[list[str]] = []

    def drill(self, faults: Sequence[str]) -> None:
        """Obey."""
        self.orders.append(list(faults))

    def drilled(self) -> Mapping[str, str]:
        """Say so."""
        return dict.fromkeys(self.orders[-1] if self.orders else [], "")


class Moving(SystemClock):
    """A clock that a test puts forward."""

    ahead = dt.timedelta()

    def now(self) -> dt.datetime:
        """Return the time that it is here."""
        return super().now() + self.ahead


def replica_of(clock: SystemClock, host: object) -> Replica:
    """Return a ready one of revision `probe-1`."""
    revision = Revision(RevisionId("probe-1"), spec_of().model_id, "probe-1", spec_of(), None, None, clock.now())
    made = Replica((ReplicaId("probe-a"), WORKER), revision, Worker(), clock)
    made.state, made.host = ReplicaState.READY, host  # pyright: ignore[reportAttributeAccessIssue]
    return made


@pytest.fixture
def clock() -> Moving:
    """A clock of its own for each test."""
    return Moving()


async def test_a_drill_ends_at_its_time_though_the_database_is_away(clock: Moving) -> None:
    """The last drills that were read are obeyed, their end too; each thing that became of them is kept once."""
    host, now = Host(), clock.now()
    store = Drills(Drill("d1", "2 steps", spec_of().model_id, RevisionId(""), WORKER, "game day", "a", now,
                         now + dt.timedelta(minutes=5)))  # fmt: skip
    replica = replica_of(clock, host)
    drilling = Drilling(WORKER, store, lambda: [replica], clock)
    for _ in range(3):
        await drilling.look(store)
    assert host.orders == [["2 steps"]]
    assert [(item.drill_id, item.replica_id, item.said) for item in store.seen] == [("d1", "probe-a", "in force")]
    store.away, clock.ahead = True, dt.timedelta(minutes=6)
    await drilling.look(store)
    assert host.orders[1:] == [[]]
    assert store.seen[-1].said == "ended"


async def test_a_drill_of_another_worker_touches_nothing_here(clock: Moving) -> None:
    """Not even an order is given."""
    host, now = Host(), clock.now()
    store = Drills(Drill("d1", "2 steps", spec_of().model_id, RevisionId(""), WorkerId("other"), "game day", "a", now,
                         now + dt.timedelta(minutes=5)))  # fmt: skip
    replica = replica_of(clock, host)
    await Drilling(WORKER, store, lambda: [replica], clock).look(store)
    assert (host.orders, store.seen) == ([], [])


async def test_a_model_that_runs_elsewhere_says_that_it_takes_no_drills(clock: Moving) -> None:
    """A server of one's own, or a provider."""
    now = clock.now()
    store = Drills(Drill("d1", "2 steps", spec_of().model_id, RevisionId(""), WORKER, "game day", "a", now,
                         now + dt.timedelta(minutes=5)))  # fmt: skip
    replica = replica_of(clock, object())
    await Drilling(WORKER, store, lambda: [replica], clock).look(store)
    assert [item.said for item in store.seen] == ["hosts of this kind take no drills"]


async def test_without_a_store_nothing_runs(clock: Moving) -> None:
    """The ordinary worker."""
    async with asyncio.timeout(5):
        await Drilling(WORKER, None, list, clock).run()
