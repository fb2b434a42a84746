"""From finished requests to evidence: counts, the control's quantiles, and the capital of each bet. Pure.

It decides how observations become marks and what a judgement of them all says; not what follows (`decide`). The
quantile that a reading is held against, and the control's rate of marks, are those of the requests before the batch:
so the bets stay fair. One slice after another is followed, in the order in which they appear, up to the policy's limit
(of tenants fewer, so that a model with many callers still has room for its sizes);
the k-th gets 1/(k(k+1)) of the slices' share of alpha, which sums to one. Called by the rollout loop and the simulator.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from forestay.rollouts.canary import bets
from forestay.rollouts.canary.model import WHOLE, Evidence, Mark, Observation, Policy, Side, Stream
from forestay.rollouts.slices import TENANT, where

_RATIO = math.log(1.02)  # values are kept to 2 %
_LEAST = 1e-6
_ENOUGH = 50  # values of the control before one of its quantiles is used
_PRIOR_SEEN, _PRIOR_MARKED = 50.0, 0.5  # of an event's rate in the control, before anything is seen
_MOST_TENANTS = 6
Arms = tuple[dict[int, int], dict[int, int]]  # histograms of a reading: the control's, the candidate's


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """How one mark stands in one slice."""

    mark: str
    slice_name: str
    share: float  # of alpha
    log_capital: float
    rates: tuple[float, float]  # control, candidate
    seen: tuple[int, int]
    marked: tuple[int, int] = (0, 0)
    beyond: bool = False  # marked is what lies beyond the control's own quantile

    def told(self) -> str:
        """Say it in words."""
        what = f"{self.mark}, beyond the control's own," if self.beyond else self.mark
        control, candidate = (f"{marked:,} of {seen:,}" for marked, seen in zip(self.marked, self.seen, strict=True))
        return f"{what}{where(self.slice_name)}: {candidate} against {control} of the control"


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What the evidence says now."""

    log_capital: float  # of the whole family, against "the candidate is like the control"
    harm: bool
    suspects: tuple[Finding, ...]  # the marks that speak most for harm, strongest first
    unproved: tuple[Finding, ...]  # marks with a margin whose non-inferiority is not proved
    excess: float  # bad answers beyond control's rate so far
    upper_excess_rate: float  # what a request of the candidate may cost at worst, beyond control's rate


def bin_of(value: float) -> int:
    """Return the bin of a reading: 2 % wide, 0 for nothing or less."""
    return 0 if value <= _LEAST else 1 + int(math.log(value / _LEAST) / _RATIO)


def absorb(evidence: Evidence, observations: Sequence[Observation], policy: Policy) -> Evidence:
    """Return the evidence after these requests, which ended since the last look, in the order given."""
    for weight, batch in _by_weight(observations):
        evidence = _absorb_batch(evidence, batch, weight, policy)
    return evidence


def _by_weight(observations: Sequence[Observation]) -> Iterator[tuple[float, list[Observation]]]:
    """Yield runs of one weight; where every request went to the candidate, there is nothing to compare it with."""
    batch: list[Observation] = []
    for item in observations:
        if not 0.0 <= item.weight < 1.0:
            continue
        if batch and batch[-1].weight != item.weight:
            yield batch[0].weight, batch
            batch = []
        batch.append(item)
    if batch:
        yield batch[0].weight, batch


def _absorb_batch(evidence: Evidence, batch: Sequence[Observation], weight: float, policy: Policy) -> Evidence:
    streams = {name: dict(marks) for name, marks in evidence.streams.items()}
    control = {name: dict(readings) for name, readings in evidence.control.items()}
    for name, inside in _by_slice(batch, streams, policy.max_slices).items():
        marks = streams.setdefault(name, {})
        known = control.setdefault(name, {})
        values = {reading: _binned(inside, reading) for reading in {mark.reading: None for mark in policy.marks}}
        for mark in policy.marks:
            if weight > 0.0 and (name == WHOLE or mark.sliced):  # before the canary: only how the control usually is
                histogram = known.get(mark.reading, {})
                marks[mark.name] = _bet(
                    marks.get(mark.name) or fresh(mark), mark, histogram, values[mark.reading], weight
                )
        for reading, (ours, _) in values.items():
            known[reading] = _added(known.get(reading, {}), ours)
    candidates = sum(item.candidate for item in batch)
    requests = (evidence.requests[0] + len(batch) - candidates, evidence.requests[1] + candidates)
    return Evidence(streams, control, requests)


def _by_slice(batch: Sequence[Observation], known: Mapping[str, object], most: int) -> dict[str, list[Observation]]:
    found: dict[str, list[Observation]] = {WHOLE: list(batch)}
    followed = {name for name in known if name != WHOLE}
    for item in batch:
        for name in item.slices:
            if name in followed or (len(followed) < most and _has_room(name, followed)):
                followed.add(name)
                found.setdefault(name, []).append(item)
    return found


def _has_room(name: str, followed: Collection[str]) -> bool:
    return not name.startswith(TENANT) or sum(item.startswith(TENANT) for item in followed) < _MOST_TENANTS


def _binned(observations: Iterable[Observation], reading: str) -> Arms:
    """Return histograms of a reading, the control's and the candidate's."""
    arms: Arms = ({}, {})
    for item in observations:
        value = item.readings.get(reading)
        if value is not None:
            place, arm = bin_of(value), arms[item.candidate]
            arm[place] = arm.get(place, 0) + 1
    return arms


def _added(histogram: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    return {**histogram, **{place: histogram.get(place, 0) + count for place, count in more.items()}}


def fresh(mark: Mark) -> Stream:
    """Return the stream of a mark of which nothing is known."""
    return Stream(0.0, tuple(bets.PRIOR.tolist()), (0.0,) * len(bets.FRACTIONS) if mark.margin is not None else ())


def _bet(stream: Stream, mark: Mark, histogram: Mapping[int, int], values: Arms, weight: float) -> Stream:
    limit = _limit(mark, histogram)
    if limit is None:
        return stream
    counts = _counts(mark, limit, values)
    if not counts.any():
        return stream
    base = np.array(_base_rate(mark, limit, histogram))
    chance = np.array(weight)
    growth = bets.harm_growth(base, chance, counts)
    log_capital, shares = bets.grow_harm(np.array(stream.log_capital), np.array(stream.shares), growth, counts[1].sum())
    log_safe = stream.log_safe
    if mark.margin is not None:
        factors = bets.safe_log_factors(base, chance, mark.margin)
        log_safe = tuple(bets.grow_safe(np.array(log_safe), factors, counts).tolist())
    return Stream(
        float(log_capital),
        tuple(shares.tolist()),
        log_safe,
        seen=(stream.seen[0] + int(counts[0].sum()), stream.seen[1] + int(counts[1].sum())),
        marked=(stream.marked[0] + int(counts[0, 1]), stream.marked[1] + int(counts[1, 1])),
    )


def _limit(mark: Mark, histogram: Mapping[int, int]) -> int | None:
    """Return the bin beyond which a reading is marked; None while the control's quantile is not known."""
    if mark.quantile is None:
        return 0
    total = sum(histogram.values())
    if total < _ENOUGH:
        return None
    reached = 0
    for place in sorted(histogram):
        reached += histogram[place]
        if reached >= mark.quantile * total:
            return place
    return None


def _is_marked(mark: Mark, limit: int, place: int) -> bool:
    if mark.quantile is None:
        return (place > 0) is not mark.absent
    return place > limit if mark.side is Side.ABOVE else place < limit


def _base_rate(mark: Mark, limit: int, histogram: Mapping[int, int]) -> float:
    total = sum(histogram.values())
    marked = sum(count for place, count in histogram.items() if _is_marked(mark, limit, place))
    if mark.quantile is not None:
        return (marked + 0.5) / (total + 1.0)
    prior = _PRIOR_SEEN - _PRIOR_MARKED if mark.absent else _PRIOR_MARKED
    return (marked + prior) / (total + _PRIOR_SEEN)


def _counts(mark: Mark, limit: int, values: Arms) -> bets.Array:
    counts = np.zeros((2, 2))
    for arm, histogram in enumerate(values):
        for place, count in histogram.items():
            counts[arm, int(_is_marked(mark, limit, place))] += count
    return counts


# What it all says ---------------------------------------------------------------------------------------------------
def judge(evidence: Evidence, policy: Policy) -> Judgement:
    """Judge every mark and slice together.

    Capitals weighted by their share of alpha add up to the capital of one bettor against "alike in everything", however
    they depend on each other (Vovk and Wang, 2021, Ann. Stat. 49: the mean of e-values is an e-value).
    """
    findings = list(_findings(evidence, policy))
    # A mark that nobody has seen holds its first capital, 1; so do slices that have not appeared.
    unseen = 1.0 - sum(item.share for item in findings)
    terms = [math.log(item.share) + item.log_capital for item in findings if item.share > 0]
    terms += [math.log(unseen)] if unseen > 1e-12 else []
    top = max(terms, default=0.0)
    total = top + math.log(sum(math.exp(term - top) for term in terms)) if terms else 0.0
    ranked = sorted(findings, key=lambda item: -(item.log_capital + math.log(item.share)))
    suspects = tuple(item for item in ranked if item.log_capital + math.log(item.share) >= total - math.log(10.0))
    return Judgement(
        log_capital=total,
        harm=total >= -math.log(policy.alpha),
        suspects=suspects[:3],
        unproved=tuple(_unproved(evidence, policy)),
        excess=_excess(evidence, policy),
        upper_excess_rate=_upper_excess_rate(evidence, policy),
    )


def _findings(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    whole = sum(mark.share for mark in policy.marks)
    sliced = [mark for mark in policy.marks if mark.sliced]
    inside = sum(mark.share for mark in sliced)
    main = 1.0 - policy.slice_share if sliced else 1.0
    for mark in policy.marks:
        stream = evidence.streams.get(WHOLE, {}).get(mark.name)
        if stream is not None:
            yield _finding(mark, WHOLE, main * mark.share / whole, stream)
    for place, name in enumerate((name for name in evidence.streams if name != WHOLE), start=1):
        for mark in sliced:
            stream = evidence.streams[name].get(mark.name)
            if stream is not None:
                share = policy.slice_share * mark.share / inside / (place * (place + 1))
                yield _finding(mark, name, share, stream)


def _finding(mark: Mark, name: str, share: float, stream: Stream) -> Finding:
    rates = tuple(marked / seen if seen else 0.0 for marked, seen in zip(stream.marked, stream.seen, strict=True))
    beyond = mark.quantile is not None
    return Finding(mark.name, name, share, stream.log_capital, (rates[0], rates[1]), stream.seen, stream.marked, beyond)


def _unproved(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    """Yield marks whose margin is not proved; each is a test of its own, since all must hold (Berger, 1982).

    A reading that neither arm has ever given (no quality scores, say) proves nothing and hinders nothing.
    """
    for mark in policy.marks:
        stream = evidence.streams.get(WHOLE, {}).get(mark.name) or fresh(mark)
        given = evidence.control.get(WHOLE, {}).get(mark.reading)
        if mark.margin is None or (evidence.requests != (0, 0) and not given and stream.seen == (0, 0)):
            continue
        if float(bets.log_mean(np.array(stream.log_safe))) < -math.log(policy.promote_alpha):
            yield _finding(mark, WHOLE, 0.0, stream)


def _excess(evidence: Evidence, policy: Policy) -> float:
    total = 0.0
    for mark in policy.marks:
        stream = evidence.streams.get(WHOLE, {}).get(mark.name)
        if mark.costs_budget and stream is not None:
            usual = stream.marked[0] / stream.seen[0] if stream.seen[0] else 0.0
            total += max(0.0, stream.marked[1] - usual * stream.seen[1])
    return total


def _upper_excess_rate(evidence: Evidence, policy: Policy) -> float:
    marks = [mark for mark in policy.marks if mark.costs_budget]
    total = 0.0
    for mark in marks:
        stream = evidence.streams.get(WHOLE, {}).get(mark.name)
        marked, seen = (stream.marked[1], stream.seen[1]) if stream is not None else (0, 0)
        usual = stream.marked[0] / stream.seen[0] if stream is not None and stream.seen[0] else 0.0
        total += max(0.0, bets.upper_rate(marked, seen, policy.promote_alpha) - usual)
    return min(1.0, total)
