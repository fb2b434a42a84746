"""What follows from the rows of an output: it may go on, is tried again, or fails with the name of the check. Pure.

A broken output is the model's fault or its device's, so it is charged to a condition of its own, with the model's own
budget; the caller's and the platform's ceilings of `queue/retry` hold as for every other failure. Called by
`worker/attempt` and, where nothing is tried again, by the direct lane.
"""

import dataclasses
from collections.abc import Sequence

from forestay.fleet.spec import RetrySpec
from forestay.fleet.spec_quality import QualityMode, QualitySpec
from forestay.quality.contracts import Row, broken_by
from forestay.queue import answers
from forestay.queue.model import Answer, ErrorType, Lease
from forestay.queue.retry import Condition, Failure, Retry, RetryPolicy, decide_retry

MAX_WORDS = 300
MAX_ASIDE = 3
ASIDE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What trying again depends on beside the attempt."""

    retry: RetrySpec
    policy: RetryPolicy
    jitter: float  # [0, 1], spreads the back-off


def broken_answer(row: Row) -> Answer:
    """Return what the caller reads of an output that failed a check."""
    place = f" at {row.where}" if row.where else ""
    detail = f"The model's output failed the check `{row.check.value}`{place}: {row.words[:MAX_WORDS]}."
    answer = answers.request_error(ErrorType.OUTPUT_CHECK_FAILED, detail)
    return dataclasses.replace(answer, headers={**answer.headers, "x-forestay-output-check": row.check.value})


def decide_whole(rows: Sequence[Row], spec: QualitySpec) -> Row | None:
    """Return the row that an output fails by; None when it may go on."""
    return broken_by(rows) if spec.mode is QualityMode.ENFORCE else None


def decide_broken(row: Row, lease: Lease, spec: QualitySpec, budget: Budget) -> Retry | Answer:
    """Decide about a queued request whose output failed: another attempt, or the answer that ends it."""
    config = {**budget.retry.config, Condition.BROKEN_OUTPUT.value: spec.retries}
    retry = dataclasses.replace(budget.retry, config=config)
    decided = decide_retry(Failure(Condition.BROKEN_OUTPUT), lease, retry, budget.policy, budget.jitter)
    if isinstance(decided, Retry):
        return dataclasses.replace(decided, reason=f"the output failed the check {row.check.value}: {decided.reason}")
    return broken_answer(row)


def decide_aside(times: int) -> Retry | None:
    """Decide whether a replica that broke an output of this request leaves it to another one, free of charge.

    It cannot know whether there is another one, so it gives up after MAX_ASIDE times and runs it again.
    """
    if times >= MAX_ASIDE:
        return None
    return Retry("", ASIDE_SECONDS, f"left to another replica, {times + 1} of {MAX_ASIDE}: this one broke its output")
