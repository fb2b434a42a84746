"""A rollout as a page: what changed, what each stage said, and that nothing from outside can write into it."""

import dataclasses
import datetime as dt
import re

from tests.conformance.fleet_values import revision_of
from tests.conformance.memory_fleet import EPOCH
from tests.rollouts.shadow_values import compared
from tests.rollouts.test_rollout_decide import fact_of, rollout_of

from forestay.diffs.noise import Said
from forestay.rollouts.canary.model import Evidence
from forestay.rollouts.model import GateResult, GateVerdict, JournalEntry, Phase, Rollout, RolloutPolicy, Stage
from forestay.rollouts.observe import learn
from forestay.rollouts.replay import at_beginning, learn_page, replay_canary, replay_shadow
from forestay.rollouts.report import Report, changes_of, report_of
from forestay.rollouts.report_pages import plot_share, render_html, render_markdown
from forestay.rollouts.shadow.decide import judge_shadow
from forestay.rollouts.shadow.model import Pair, ShadowPolicy

OLD, NEW = revision_of("digits-1"), revision_of("digits-2")
BAD = [compared(number, 6.0, "/ <b>large</b>") for number in range(11)] + [compared(20)]
JOURNAL = [
    JournalEntry(1, EPOCH, "human:k1", Stage.GATES, 0.0, "begun"),
    JournalEntry(2, EPOCH + dt.timedelta(seconds=5), "loop:rollout", Stage.SHADOW, 0.0, "2 gates passed"),
    JournalEntry(3, EPOCH + dt.timedelta(seconds=65), "loop:rollout", Stage.ROLLED_BACK, 0.0, "stopped in shadow"),
]


def ended(pairs: list[Pair]) -> Rollout:
    """A rollout that its shadow has ended."""
    policy = dataclasses.replace(RolloutPolicy(), shadow=ShadowPolicy(requests=12))
    verdict = judge_shadow(policy.shadow, pairs, EPOCH, EPOCH)
    gates = (GateResult("start", GateVerdict.PASS, "a replica is ready"),)
    return dataclasses.replace(
        rollout_of(Stage.ROLLED_BACK), policy=policy, shadow=verdict, gates=gates, reason=f"stopped: {verdict.reason}"
    )


def report_with(pairs: list[Pair] | None = None) -> Report:
    """Its page."""
    found = BAD if pairs is None else pairs
    changed = dataclasses.replace(NEW, spec=dataclasses.replace(NEW.spec, description="<script>alert(1)</script>"))
    return report_of(ended(found), (OLD, changed), JOURNAL, found)


def test_a_page_tells_what_changed_what_differs_and_what_was_decided() -> None:
    """The worst comes first, in Markdown and in HTML."""
    page = render_markdown(report_with(), {str(BAD[0].request_id): "one.png"})
    assert "| description |" in page
    assert "differs: 11 of 12 requests differ" in page
    assert "| start | pass | a replica is ready |" in page
    assert "![" in page
    rows = [line for line in page.splitlines() if line.startswith("| 00000000")]
    assert [line.split("|")[3].strip() for line in rows] == ["differs"] * 11 + ["same"]
    assert "No request of a caller ended on the candidate" in page


def test_html_is_one_safe_file_with_its_plots() -> None:
    """Whatever a spec or a path says is text; pictures are inside."""
    page = render_html(report_with(), {str(BAD[0].request_id): b"png"})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>large" not in page
    assert page.count("<svg") == 2
    assert "data:image/png;base64,cG5n" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_a_rollout_without_shadow_and_traffic_has_a_page_as_well() -> None:
    """Nothing is made up."""
    plain = report_of(rollout_of(Stage.GATES), (OLD, None), JOURNAL[:1], [])
    assert "There was no shadow" in render_markdown(plain)
    assert plot_share(JOURNAL[:1]) == ""
    assert "still running" in render_html(plain)
    assert changes_of(OLD, OLD) == []


def test_a_replay_of_the_shadow_says_the_same_and_notices_what_was_altered() -> None:
    """The verdict follows from the comparisons alone."""
    rollout = ended(BAD)
    same = replay_shadow(rollout, BAD)
    assert same is not None
    assert same.agrees
    assert same.stored == same.again
    altered = replay_shadow(rollout, [compared(number) for number in range(12)])
    assert altered is not None
    assert not altered.agrees
    assert replay_shadow(rollout_of(), []) is None
    waiting = dataclasses.replace(ended(BAD[:3]))
    grown = replay_shadow(waiting, BAD)
    assert waiting.shadow is not None
    assert waiting.shadow.said is Said.INCONCLUSIVE
    assert grown is not None
    assert grown.agrees


def test_a_replay_of_the_canary_counts_the_same_requests() -> None:
    """From the facts, page by page, up to where the loop had looked; a fact that is gone is noticed."""
    phases = (Phase(0.0, EPOCH, EPOCH + dt.timedelta(seconds=5)), Phase(50.0, EPOCH + dt.timedelta(seconds=5)))
    start = dataclasses.replace(rollout_of(weight=50.0), phases=phases, evidence=Evidence())
    facts = [
        fact_of(number * 37 % 10_000, 10.0 + number, 11.0 + number, "model_error" if number % 9 == 0 else "succeeded")
        for number in range(200)
    ]
    learned = learn(start, facts, EPOCH + dt.timedelta(seconds=400))
    again, more = at_beginning(learned), True
    pages = [facts[:120], [*facts[120:], fact_of(1, 900.0, 901.0)]]
    while more and pages:
        again, more = learn_page(again, pages.pop(0), learned.cursor)
    assert replay_canary(learned, again).agrees
    missing, _ = learn_page(at_beginning(learned), facts[:150], learned.cursor)
    assert not replay_canary(learned, missing).agrees
