"""Counters in Valkey: one script call for everything that is asked of one slot within one tick of the event loop.

It decides how questions are gathered: a question that comes alone is asked at once; once several come together, batches
begin every eight milliseconds, so that a busy gateway asks in tens. What is told rides along, and waits a little
longer where nothing is asked. A Valkey that does not answer in time is Unavailable for all who
wait; `failover` decides what happens then. A script that the server has forgotten (a restart) is loaded again. Slots
are hash tags, so that every key of a script lies on one node of a cluster.
"""

# The client's connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false

import asyncio
import contextlib
import dataclasses
import datetime as dt
import importlib.resources
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
from valkey.asyncio import Valkey
from valkey.asyncio.connection import AbstractConnection
from valkey.exceptions import NoScriptError, ValkeyError

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.limits.counters import (
    NOWHERE,
    Elsewhere,
    Held,
    Outcome,
    Short,
    Spending,
    Taken,
    Unknown,
    month_left_seconds,
    month_of,
)
from forestay.limits.model import Charge, Subject
from forestay.limits.plan import Plan

MAX_WAITING = 20_000
PACE_SECONDS = 0.008  # between two batches under load: bounds what asking costs, and how long a question waits
TELL_SECONDS = 0.02  # longest wait of what is told for a question
_SCRIPT = (importlib.resources.files("forestay.limits") / "lua" / "counters.lua").read_text(encoding="utf-8")
_LOST = (ValkeyError, OSError, TimeoutError)
_Verdict = float | list[float]
_Reply = tuple[list[_Verdict], list[_Verdict]]  # verdicts of questions, levels of plans: see the script
_decode = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode
_Answers = asyncio.Future[Outcome]


@dataclasses.dataclass(slots=True)
class _Batch:
    """What is asked of one slot together."""

    plans: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    ops: list[str] = dataclasses.field(default_factory=list[str])
    waiting: list[tuple[int, _Answers]] = dataclasses.field(default_factory=list[tuple[int, _Answers]])
    settled: dict[tuple[int, str], list[float]] = dataclasses.field(default_factory=dict[tuple[int, str], list[float]])

    def number_of(self, plan: Plan) -> int:
        """Return the plan's number in this batch, from 1."""
        return self.plans.setdefault(plan.text, len(self.plans) + 1)

    def text(self, month: str, month_left: float) -> str:
        """Return the script's argument. What has ended comes first: it makes room."""
        ended = [
            f'["s",{plan},"{holder}",{_encode(sums)[1:-1].decode()}]' for (plan, holder), sums in self.settled.items()
        ]
        ops = ",".join((*ended, *self.ops))
        return f'{{"p":[{",".join(self.plans)}],"o":[{ops}],"n":"{month}","w":{month_left!r}}}'

    def tell(self, reply: _Reply) -> None:
        """Give each question its answer; those that were granted together share one."""
        verdicts, levels = reply
        granted = [Taken(item) if isinstance(item, list) else Unknown() for item in levels]
        for (plan, future), verdict in zip(self.waiting, verdicts, strict=True):
            if future.done():
                continue
            if isinstance(verdict, list):
                shown = granted[plan - 1]
                future.set_result(Short(int(verdict[0]), verdict[1], shown.levels if isinstance(shown, Taken) else []))
            else:
                future.set_result(granted[plan - 1] if verdict == 1 else Unknown())


class ValkeyCounters:
    """Counters for every gateway; `run` carries out what is asked."""

    def __init__(self, url: str, clock: Clock, timeout_seconds: float) -> None:
        self._client = Valkey.from_url(url, socket_connect_timeout=timeout_seconds)
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._batches: dict[str, _Batch] = {}
        self._some = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._sha = ""
        self._flushed: list[asyncio.Future[None]] = []
        self._size = 0  # operations that wait
        self._timer: asyncio.TimerHandle | None = None  # of the next batch
        self._due = 0.0  # when that is, by the event loop's clock
        self._began = 0.0  # when the last batch began
        self._pace_seconds = 0.0  # from then to the next

    async def take(
        self, plan: Plan, holder: str, charge: Charge, lease_seconds: float, elsewhere: Elsewhere = NOWHERE
    ) -> Outcome:
        """Check everything in the plan and take all of it or nothing."""
        batch = self._batch(plan)
        number = batch.number_of(plan)
        op = f'["t",{number},"{holder}",{charge.gpu_seconds!r},{charge.money!r},{lease_seconds!r}'
        if elsewhere:
            op += "," + _encode({str(subject): flights for subject, flights in elsewhere.items()}).decode()
        return await self._ask(batch, number, op + "]")

    async def view(self, plan: Plan) -> Outcome:
        """Tell the levels."""
        batch = self._batch(plan)
        number = batch.number_of(plan)
        return await self._ask(batch, number, f'["v",{number}]')

    def give_back(self, plan: Plan, holder: str, charge: Charge, *, whole: bool) -> None:
        """Undo a take."""
        self._tell(plan, "b", f'"{holder}",{charge.gpu_seconds!r},{charge.money!r},{int(whole)}')

    def settle(self, plan: Plan, holder: str, predicted: Charge, actual: Charge, lease_seconds: float) -> None:
        """End a call in flight at what it took."""
        if self._size >= MAX_WAITING:
            return
        batch = self._batch(plan)
        key = (batch.number_of(plan), holder)
        sums = batch.settled.get(key)  # calls that end together end in one operation
        if sums is None:
            sums = batch.settled[key] = [0.0, 0.0, 0.0, 0.0, lease_seconds, 0]
        sums[0] += predicted.gpu_seconds
        sums[1] += predicted.money
        sums[2] += actual.gpu_seconds
        sums[3] += actual.money
        sums[5] += 1
        self._schedule_tell()

    def release(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Let go of what was settled."""
        self._tell(plan, "l", f'"{holder}",{actual.gpu_seconds!r},{actual.money!r}')

    def confirm(self, plan: Plan, holder: str) -> None:
        """Let a holder stand without a lease."""
        self._tell(plan, "c", f'"{holder}"')

    def keep(self, plan: Plan, subject: Subject, holder: str, held: Held, lease_seconds: float) -> None:
        """Renew a holder's lease."""
        numbers = f"{held.charge.gpu_seconds!r},{held.charge.money!r},{held.flights},{lease_seconds!r}"
        self._tell(plan, "k", f'"{subject}","{holder}",{numbers}')

    def finish(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Drop a holder."""
        self._tell(plan, "e", f'"{holder}",{actual.gpu_seconds!r}')

    def raise_spent(self, plan: Plan, subject: Subject, month: dt.date, spent: Charge) -> None:
        """Tell what the month has cost a subject by now."""
        self._tell(plan, "u", f'"{subject}","{_name(month)}",{spent.gpu_seconds!r},{spent.money!r}')

    def seed(self, plan: Plan, subject: Subject, month: dt.date, spending: Spending) -> None:
        """Tell what the month has cost a subject of which nothing is known."""
        live = [[holder, held.gpu_seconds, held.money] for holder, held in spending.live.items()]
        spent = spending.spent
        numbers = f"{spent.gpu_seconds!r},{spent.money!r},{_encode(live).decode()}"
        self._tell(plan, "d", f'"{subject}","{_name(month)}",{numbers}')

    async def flush(self) -> None:
        """Wait until everything told so far has been carried out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushed.append(done)
        self._some.set()
        await done

    async def run(self) -> None:
        """Carry out what is asked until cancelled; whoever waits then hears that nobody counts any more."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                batches, self._batches, self._size = self._batches, {}, 0
                flushed, self._flushed = self._flushed, []
                asked = sum(len(batch.waiting) for batch in batches.values())
                self._began, self._pace_seconds = loop.time(), PACE_SECONDS if asked > 1 else 0.0
                await self._carry_out(batches, flushed)
        finally:
            _refuse(self._batches.values(), self._flushed, Unavailable("the counters are closing"))
            self._batches, self._flushed = {}, []
            await self._hang_up()

    async def _carry_out(self, batches: dict[str, _Batch], flushed: Sequence[asyncio.Future[None]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answers = await self._call(batches)
        except _LOST as error:
            await self._hang_up()
            away = Unavailable(f"Valkey does not answer ({type(error).__name__})", retry_after_seconds=1.0)
            _refuse(batches.values(), flushed, away)
            return
        except BaseException:
            _refuse(batches.values(), flushed, Unavailable("the counters are closing"))
            raise
        for batch, answer in zip(batches.values(), answers, strict=True):
            batch.tell(answer)
        for done in flushed:
            if not done.done():
                done.set_result(None)

    async def _call(self, batches: dict[str, _Batch]) -> list[_Reply]:
        """Run the script once a slot, all in one go over one connection."""
        connection = await self._connect()
        if not batches:
            await connection.send_command("PING")
            await connection.read_response()
            return []
        now = self._clock.now()
        month, left = _name(month_of(now)), month_left_seconds(now)
        asked = [(f"fl:{{{slot}}}", batch.text(month, left)) for slot, batch in batches.items()]
        replies = await _run_script(connection, self._sha, asked)
        forgotten = [n for n, reply in enumerate(replies) if reply is None]
        if forgotten:  # the server was restarted: what it did not know it has not done
            self._sha = await _load(connection)
            again = await _run_script(connection, self._sha, [asked[n] for n in forgotten])
            for n, reply in zip(forgotten, again, strict=True):
                replies[n] = reply
        return [_decode(reply or b"") for reply in replies]

    async def _connect(self) -> AbstractConnection:
        if self._connection is None:
            connection = await self._client.connection_pool.get_connection("EVALSHA")
            self._connection = connection
            self._sha = await _load(connection)
        return self._connection

    async def _hang_up(self) -> None:
        """Close the connection: an answer that is still on its way would be taken for the next one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*_LOST):  # it is broken already
                await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)

    def _batch(self, plan: Plan) -> _Batch:
        if self._size >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} questions wait for the counters", retry_after_seconds=1.0)
        self._size += 1
        batch = self._batches.get(plan.slot)
        if batch is None:
            batch = self._batches[plan.slot] = _Batch()
        return batch

    async def _ask(self, batch: _Batch, plan: int, op: str) -> Outcome:
        future: _Answers = asyncio.get_running_loop().create_future()
        batch.ops.append(op)
        batch.waiting.append((plan, future))
        self._schedule(self._began + self._pace_seconds)
        return await future

    def _tell(self, plan: Plan, name: str, values: str) -> None:
        """Add an operation that has no answer; with too much waiting it is dropped, and leases tidy up."""
        if self._size < MAX_WAITING:
            batch = self._batch(plan)
            batch.ops.append(f'["{name}",{batch.number_of(plan)},{values}]')
            self._schedule_tell()

    def _schedule_tell(self) -> None:
        if self._timer is None:
            self._schedule(asyncio.get_running_loop().time() + TELL_SECONDS)

    def _schedule(self, due: float) -> None:
        """Let the next batch begin at `due` (the event loop's clock), unless it begins earlier."""
        if self._some.is_set() or (self._timer is not None and self._due <= due):
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due <= loop.time():
            self._some.set()
        else:
            self._due, self._timer = due, loop.call_at(due, self._some.set)


async def _load(connection: AbstractConnection) -> str:
    await connection.send_command("SCRIPT", "LOAD", _SCRIPT)
    return cast("bytes", await connection.read_response(disable_decoding=True)).decode()


async def _run_script(connection: AbstractConnection, sha: str, asked: Sequence[tuple[str, str]]) -> list[bytes | None]:
    """Return the replies in order; None where the server does not know the script."""
    commands = [("EVALSHA", sha, 1, slot, text) for slot, text in asked]
    await connection.send_packed_command(connection.pack_commands(commands))
    replies: list[bytes | None] = []
    for _ in commands:
        try:
            replies.append(cast("bytes", await connection.read_response(disable_decoding=True)))
        except NoScriptError:
            replies.append(None)
    return replies


def _refuse(batches: Iterable[_Batch], flushed: Sequence[asyncio.Future[None]], error: Unavailable) -> None:
    for batch in batches:
        for _, future in batch.waiting:
            if not future.done():
                future.set_exception(error)
    for done in flushed:
        if not done.done():
            done.set_exception(error)


def _name(month: dt.date) -> str:
    return f"{month.year:04d}-{month.month:02d}"
