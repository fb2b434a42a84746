"""From scores to a verdict: what is not scored is never released, and more evidence never decides less."""

import dataclasses
import math
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.decide import NOTHING_TO_JUDGE, Place, decide, fallbacks, is_decisive, stricter, wanted
from forestay.safety.model import Outcome, Scores, Trouble, Unscored, checked
from forestay.safety.policy import CHANGES, UNGUARDED, Action, Band, Fallback, Policy, Rule
from forestay.safety.taxonomy import Category, Modality
from forestay.verdicts import Verdict

STRICT = dict.fromkeys(Trouble, Fallback(Action.REVIEW))
CHEAPER = {**STRICT, Trouble.CRASH: Fallback(Action.BLOCK, "words@1")}
BANDS = (Band(0.5, Action.FLAG), Band(0.7, Action.REVIEW), Band(0.9, Action.BLOCK))
TEXT = Rule(frozenset({Category.VIOLENCE, Category.HATE}), Modality.TEXT, ("cheap@1", "costly@1"), BANDS, CHEAPER)
IMAGE = Rule(frozenset({Category.SEXUAL}), Modality.IMAGE, ("nsfw@1",), BANDS, STRICT)
POLICY = Policy("p", 1, "", 1.0, (TEXT, IMAGE))
PROMPT = Place("prompt", Modality.TEXT)
PICTURE = Place("images[0]", Modality.IMAGE)

scores = st.floats(0.0, 1.0)
outcomes_of = st.one_of(
    scores.map(lambda score: ("scored", score)),
    st.sampled_from(list(Trouble)).map(lambda trouble: ("trouble", trouble)),
)


def scored(detector: str, where: str, **said: float) -> Scores:
    """A detector's scores by the names of categories."""
    return Scores(detector, where, {Category(name): score for name, score in said.items()})


@pytest.mark.parametrize(
    ("score", "action", "verdict"),
    [
        (0.49, Action.ALLOW, Verdict.ALLOW),
        (0.5, Action.FLAG, Verdict.FLAG),
        (0.7, Action.REVIEW, Verdict.INCONCLUSIVE),
        (0.9, Action.BLOCK, Verdict.BLOCK),
    ],
)
def test_the_highest_band_that_a_score_reaches_decides(score: float, action: Action, verdict: Verdict) -> None:
    """And the judgement names the category and the field that led to it."""
    said = [scored("cheap@1", "prompt", violence=score, hate=0.1), scored("costly@1", "prompt")]
    judgement = decide(POLICY, [PROMPT], said)
    assert (judgement.action, judgement.verdict) == (action, verdict)
    if action is not Action.ALLOW:
        assert (judgement.category, judgement.where) == (Category.VIOLENCE, "prompt")
        assert "violence" in judgement.reason


def test_a_category_that_the_rule_does_not_name_does_not_count() -> None:
    """A detector may say more than it was asked."""
    said = [scored("cheap@1", "prompt", sexual=1.0), scored("costly@1", "prompt")]
    assert decide(POLICY, [PROMPT], said).verdict is Verdict.ALLOW


def test_a_detector_that_said_nothing_counts_as_crashed() -> None:
    """Whoever forgot to ask it releases nothing."""
    judgement = decide(POLICY, [PICTURE], [])
    assert (judgement.verdict, judgement.action) == (Verdict.INCONCLUSIVE, Action.REVIEW)
    assert "crash" in judgement.reason


def test_a_cheaper_detector_stands_in_for_one_that_is_down() -> None:
    """It is asked for exactly the places that were not scored; its score then decides, and if it has none, the rule."""
    down: list[Outcome] = [scored("cheap@1", "prompt"), Unscored("costly@1", "prompt", Trouble.CRASH)]
    assert fallbacks(POLICY, [PROMPT], down) == {"words@1": (PROMPT,)}
    assert decide(POLICY, [PROMPT], [*down, scored("words@1", "prompt")]).verdict is Verdict.ALLOW
    assert decide(POLICY, [PROMPT], [*down, scored("words@1", "prompt", hate=1.0)]).verdict is Verdict.BLOCK
    assert decide(POLICY, [PROMPT], [*down, Unscored("words@1", "prompt", Trouble.TIMEOUT)]).verdict is Verdict.BLOCK
    assert decide(POLICY, [PROMPT], down).action is Action.BLOCK


def test_what_a_decisive_outcome_made_needless_is_not_missed() -> None:
    """A cheap detector that blocks is enough: the verdict is its score, not the other's silence."""
    block = scored("cheap@1", "prompt", hate=0.95)
    assert is_decisive(POLICY, Modality.TEXT, block)
    judgement = decide(POLICY, [PROMPT], [block])
    assert (judgement.verdict, judgement.category) == (Verdict.BLOCK, Category.HATE)


def test_a_waiver_releases_trouble_as_flagged_and_never_a_block() -> None:
    """Break glass is for a detector that is down, not for what it found; and what concerns minors is never waived."""
    down = [Unscored("nsfw@1", "images[0]", Trouble.CRASH)]
    assert decide(POLICY, [PICTURE], down, {"nsfw@1"}).verdict is Verdict.FLAG
    found = [scored("nsfw@1", "images[0]", sexual=1.0)]
    assert decide(POLICY, [PICTURE], found, {"nsfw@1"}).verdict is Verdict.BLOCK
    for trouble in (Trouble.UNREADABLE, Trouble.LANGUAGE):  # is not the detector's
        shut = [Unscored("nsfw@1", "images[0]", trouble)]
        assert decide(POLICY, [PICTURE], shut, {"nsfw@1"}) == decide(POLICY, [PICTURE], shut)
    rule = dataclasses.replace(IMAGE, categories=frozenset({Category.SEXUAL, Category.MINORS}))
    policy = dataclasses.replace(POLICY, rules=(rule,))
    assert decide(policy, [PICTURE], down, {"nsfw@1"}).verdict is Verdict.INCONCLUSIVE


def test_a_category_that_nobody_covers_gets_what_the_policy_says() -> None:
    """Silence is not an option: the rule says review or block, and that happens."""
    rule = Rule(frozenset({Category.WEAPONS}), Modality.IMAGE, (), (), {}, Action.BLOCK)
    judgement = decide(dataclasses.replace(POLICY, rules=(rule,)), [PICTURE], [])
    assert judgement.verdict is Verdict.BLOCK
    assert "no detector covers it" in judgement.reason


def test_a_policy_without_checks_lets_everything_pass() -> None:
    """What a policy does not name is not judged."""
    assert decide(UNGUARDED, [PROMPT, PICTURE], []) == NOTHING_TO_JUDGE
    assert wanted(UNGUARDED, [PROMPT]) == {}


def test_every_named_detector_is_wanted_for_its_own_places() -> None:
    """Text goes to those of text, pictures to those of pictures."""
    assert wanted(POLICY, [PROMPT, PICTURE]) == {
        "cheap@1": (PROMPT,), "costly@1": (PROMPT,), "nsfw@1": (PICTURE,),
    }  # fmt: skip


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_no_score_is_a_crash(score: float) -> None:
    """NaN compares as false with every threshold: it must not be read as harmless."""
    outcome = checked(Scores("nsfw@1", "images[0]", {Category.SEXUAL: score}))
    assert outcome == Unscored("nsfw@1", "images[0]", Trouble.CRASH)


def _outcomes(drawn: list[tuple[str, object]]) -> list[Outcome]:
    asked = [("cheap@1", "prompt"), ("costly@1", "prompt"), ("words@1", "prompt"), ("nsfw@1", "images[0]")]
    made: list[Outcome] = []
    for (detector, where), (kind, value) in zip(asked, drawn, strict=True):
        if kind == "trouble":
            made.append(Unscored(detector, where, Trouble(str(value))))
        else:
            score = float(str(value))
            made.append(Scores(detector, where, {Category.VIOLENCE: score, Category.SEXUAL: score}))
    return made


@given(st.lists(outcomes_of, min_size=4, max_size=4), scores, st.integers(0, 3))
def test_a_higher_score_never_decides_less(drawn: list[tuple[str, object]], more: float, which: int) -> None:
    """Monotone: raising one score leaves the action as severe or makes it more so."""
    if drawn[which][0] == "trouble":
        return
    before = decide(POLICY, [PROMPT, PICTURE], _outcomes(drawn))
    raised = list(drawn)
    raised[which] = ("scored", max(more, float(str(drawn[which][1]))))
    after = decide(POLICY, [PROMPT, PICTURE], _outcomes(raised))
    assert after.action.severity >= before.action.severity


@given(st.lists(outcomes_of, min_size=4, max_size=4), st.sets(st.integers(0, 3)))
def test_nothing_is_released_without_a_score_of_every_check(drawn: list[tuple[str, object]], lost: set[int]) -> None:
    """Whatever is lost on the way: an allow needs every named detector's score, or its stand-in's."""
    kept = [outcome for place, outcome in enumerate(_outcomes(drawn)) if place not in lost]
    judgement = decide(POLICY, [PROMPT, PICTURE], kept)
    if judgement.verdict not in {Verdict.ALLOW, Verdict.FLAG}:
        return
    have = {outcome.detector_id for outcome in kept if isinstance(outcome, Scores)}
    assert "nsfw@1" in have
    assert {"cheap@1", "costly@1"} <= have or "words@1" in have


@given(st.lists(outcomes_of, min_size=2, max_size=2), st.lists(outcomes_of, min_size=2, max_size=2))
def test_a_tenants_policy_only_adds(ours: list[tuple[str, object]], tenants: list[tuple[str, object]]) -> None:
    """What both judge is as severe as the more severe of the two, whichever that is."""
    one, other = (decide(POLICY, [PROMPT], _two(said)) for said in (ours, tenants))
    both = stricter(one, other)
    assert both.action.severity == max(one.action.severity, other.action.severity)
    assert both.releases == (one.releases and other.releases)
    assert both.checks == (*one.checks, *other.checks)


def _two(said: list[tuple[str, object]]) -> list[Outcome]:
    """What the two detectors of the text rule say."""
    return [
        scored(name, "prompt", violence=cast("float", what))
        if kind == "scored"
        else Unscored(name, "prompt", cast("Trouble", what))
        for name, (kind, what) in zip(("cheap@1", "costly@1"), said, strict=True)
    ]


ALL_BANDS = tuple(Band(0.1 + 0.1 * place, action) for place, action in enumerate(list(Action)[1:]))


@given(
    scores,
    st.integers(0, len(ALL_BANDS) - 1),
    st.sampled_from(list(Action)[1:]),
    st.frozensets(st.sampled_from([Action.BLUR, Action.REWRITE])),
)
def test_a_more_severe_rule_never_leads_to_less(
    score: float, place: int, instead: Action, able: frozenset[Action]
) -> None:
    """Whatever the score, and whatever can be changed here: an action put in for a milder one is at least as severe."""
    band = ALL_BANDS[place]
    if instead.severity < band.action.severity:
        instead = band.action
    harsher = (*ALL_BANDS[:place], dataclasses.replace(band, action=instead), *ALL_BANDS[place + 1 :])
    said = [scored("nsfw@1", "images[0]", sexual=score)]
    before, after = (
        decide(
            dataclasses.replace(POLICY, rules=(dataclasses.replace(IMAGE, bands=bands),)), [PICTURE], said, able=able
        )
        for bands in (ALL_BANDS, harsher)
    )
    if band.action in able or band.action not in CHANGES:  # a change that cannot be made is a block, the most severe
        assert after.action.severity >= before.action.severity or before.action is Action.BLOCK
    assert not (before.action is Action.BLOCK and after.releases)


def test_a_change_that_nobody_can_make_is_a_block() -> None:
    """Whoever cannot blur or rewrite does not pass on what should have been."""
    for action in (Action.BLUR, Action.REWRITE):
        policy = dataclasses.replace(POLICY, rules=(dataclasses.replace(IMAGE, bands=(Band(0.5, action),)),))
        said = [scored("nsfw@1", "images[0]", sexual=0.6)]
        assert decide(policy, [PICTURE], said).action is Action.BLOCK
        able = decide(policy, [PICTURE], said, able={action})
        assert (able.action, able.verdict, able.releases) == (action, Verdict.FLAG, False)
        assert able.places_of(action) == {"images[0]"}
