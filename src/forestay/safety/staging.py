"""How a new version of a policy comes into force: in shadow, for a share of requests, for all. Pure.

A version in shadow judges everything beside the one in force, and its judgements are recorded without effect. Which
share of requests a candidate decides depends on the request's bucket alone, so that a request meets one version
however often it is judged. Called by `policies` and by the store.
"""

import dataclasses

from forestay.errors import UsageError
from forestay.ids import BUCKETS

WHOLE_PERCENT = 100.0


@dataclasses.dataclass(frozen=True, slots=True)
class Staging:
    """Which versions of a policy are in force; version 0 is what came along."""

    policy_id: str
    live: int
    candidate: int | None = None
    percent: float = 0.0  # of requests that the candidate decides; 0: it judges in shadow

    @property
    def stage(self) -> str:
        """Return the stage by its name."""
        if self.candidate is None:
            return "all"
        return "shadow" if self.percent == 0.0 else "percent"


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """Which version decides about one request, and which judges in its shadow."""

    deciding: int
    shadow: int | None


def choose(staging: Staging, bucket: int) -> Chosen:
    """Choose for a request by its bucket, 0 <= bucket < BUCKETS."""
    if staging.candidate is None:
        return Chosen(staging.live, None)
    if bucket < staging.percent / WHOLE_PERCENT * BUCKETS:
        return Chosen(staging.candidate, staging.live)
    return Chosen(staging.live, staging.candidate)


def propose(staging: Staging, version: int) -> Staging:
    """Let a new version judge in shadow; the candidate before it, if any, is dropped."""
    return Staging(staging.policy_id, staging.live, version)


def advance(staging: Staging, percent: float) -> Staging:
    """Let the candidate decide for this share of requests; 100 puts it in force. UsageError where there is none."""
    if not 0.0 <= percent <= WHOLE_PERCENT:
        raise UsageError("percent", "must be between 0 (shadow) and 100 (all)")
    if staging.candidate is None:
        what = f"policy {staging.policy_id} has no candidate; set a new version of it first"
        raise UsageError("policy_id", what)
    if percent == WHOLE_PERCENT:
        return Staging(staging.policy_id, staging.candidate)
    return dataclasses.replace(staging, percent=percent)


def roll_back(staging: Staging, version: int | None) -> Staging:
    """Drop the candidate; with a version, put that earlier one in force for all at once."""
    return Staging(staging.policy_id, staging.live if version is None else version)
