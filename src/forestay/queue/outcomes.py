"""What becomes of a request that is given back, or whose lease ran out: back into the queue, or failed for good. Pure.

`queue/retry` decides; this turns its decisions into the items of the store's statements. The SQL adapter calls it.
"""

from collections.abc import Mapping
from typing import cast

from forestay.ids import RequestId, WorkerId
from forestay.queue import answers, retry, rows
from forestay.queue.model import HELD, Outcome, Requeue, State
from forestay.storage.postgres import Record


def after_requeue(item: Requeue, policy: retry.RetryPolicy) -> rows.GivenBack | rows.Ending:
    """Return what a worker's requeue comes to: within the caps another attempt, beyond them the end."""
    verdict = retry.cap(item, policy)
    return _given_back(item) if verdict is None else _failed(item, verdict)


def after_lost_lease(record: Record, policy: retry.RetryPolicy, jitter: float) -> rows.GivenBack | rows.Ending:
    """Return what a row of `lost_leases` comes to."""
    request_id, attempt = RequestId(record["request_id"]), cast("int", record["attempt"])
    lost_leases, retries_used = cast("int", record["lost_leases"]), cast("Mapping[str, int]", record["retries_used"])
    no_retry = rows.decode_options(record["options"]).no_retry
    lost = retry.LostLease(attempt, lost_leases, retries_used, no_retry, record["started_at"] is not None)
    decision = retry.decide_rescue(lost, policy, jitter)
    if isinstance(decision, retry.GiveUp):
        answer = answers.after_giving_up(decision, len(record["crashed_replicas"]))
        return rows.Ending(
            request_id, HELD, State.FAILED, answer, None, Outcome.WORKER_LOST, attempt, attempt_lost=True
        )
    return rows.GivenBack(
        request_id=request_id,
        attempt=attempt,
        worker_id=WorkerId(record["worker_id"]),
        delay_seconds=decision.delay_seconds,
        crashed_replicas=record["crashed_replicas"],
        retries_used=retries_used,
        lost_leases=lost_leases + 1,
        alone=decision.alone,
        outcome=Outcome.WORKER_LOST,
        report=None,
    )


def _given_back(item: Requeue) -> rows.GivenBack:
    lease = item.lease
    used = dict(lease.retries_used)
    if item.condition:
        used[item.condition] = used.get(item.condition, 0) + 1
    return rows.GivenBack(
        request_id=lease.request_id,
        attempt=lease.attempt,
        worker_id=lease.worker_id,
        delay_seconds=item.delay_seconds,
        crashed_replicas=retry.crashed_with(lease, crashed=item.crashed),
        retries_used=used,
        lost_leases=lease.lost_leases,
        alone=lease.lost_leases >= retry.ALONE_AFTER_LOST_LEASES,
        outcome=item.report.outcome,
        report=item.report,
    )


def _failed(item: Requeue, verdict: retry.GiveUp) -> rows.Ending:
    lease = item.lease
    crashed = retry.crashed_with(lease, crashed=item.crashed)
    return rows.Ending(
        request_id=lease.request_id,
        from_states=HELD,
        state=State.FAILED,
        answer=answers.after_giving_up(verdict, len(crashed)),
        body_key=None,
        outcome=item.report.outcome,
        attempt=lease.attempt,
        worker_id=lease.worker_id,
        report=item.report,
    )
