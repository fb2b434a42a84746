"""Policies as people write them: what is not said clearly is refused, with its line and its mend."""

import dataclasses

import pytest

from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError
from forestay.safety.coverage import gaps, matrix
from forestay.safety.model import DetectorInfo, Trouble
from forestay.safety.policy import Action
from forestay.safety.policy_file import read_policy, standard_policy, standard_text
from forestay.safety.taxonomy import CODES, Category, Modality

GOOD = """\
version: 1
deadline: 800ms
rules:
  - modality: image
    categories: [sexual]
    detectors: [nsfw@1]
    flag_at: 0.4
    block_at: 0.8
    trouble:
      {crash: review, timeout: {degrade: nsfw@2, else: block}, overload: review, language: review, unreadable: block}
  - modality: image
    categories: [weapons]
    uncovered: review
"""
NSFW = DetectorInfo("nsfw@1", "sha256:0", {Modality.IMAGE: frozenset({Category.SEXUAL})}, costly=True)
NSFW_2 = DetectorInfo("nsfw@2", "sha256:0", {Modality.IMAGE: frozenset({Category.SEXUAL})}, costly=False)


def test_a_policy_says_what_it_says() -> None:
    """Thresholds, deadline, fallbacks, and what nobody covers."""
    policy = read_policy(GOOD, "mine", 3)
    sexual, weapons = policy.rules
    assert (policy.policy_id, policy.version, policy.deadline_seconds) == ("mine", 3, 0.8)
    assert sexual.action_at(0.5) == (Action.FLAG, 0.4)
    assert sexual.on[Trouble.TIMEOUT].detector_id == "nsfw@2"
    assert weapons.uncovered is Action.REVIEW
    assert policy.detectors() == {"nsfw@1", "nsfw@2"}
    assert policy.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("version: 1", "version: 2", "1: version: must be 1"),
        ("version: 1", "version: true", "1: version: must be 1"),
        ("nsfw@2", "nsfw@1", "rules.0.trouble.timeout: nsfw@1 is asked already; name another"),
        (
            "[sexual]\n    detectors: [nsfw@1]\n    flag_at: 0.4\n    block_at: 0.8",
            "[minors]\n    detectors: [nsfw@1]\n    flag_at: 0.4",
            "4: rules.0: a rule about `minors` needs `block_at`",
        ),
        ("deadline: 800ms", "deadline: 800ms\nlogs: never", "3: logs: must be one of judge, withhold, pass"),
        ("deadline: 800ms", "deadline: 2h", "2: deadline: must be a time"),
        (
            "modality: image\n    categories: [sexual]",
            "modality: smell\n    categories: [sexual]",
            "4: rules.0.modality",
        ),
        ("[sexual]", "[rudeness]", "5: rules.0.categories.0: must be one of"),
        ("[nsfw@1]", "[nsfw]", "6: rules.0.detectors.0: must name a detector with its version"),
        ("flag_at: 0.4", "flag_at: 0.9", "must be above the threshold of `flag`"),
        ("block_at: 0.8", "block_at: 1.2", "8: rules.0.block_at: must be a score above 0 and at most 1"),
        ("crash: review", "crash: allow", "rules.0.trouble.crash: must be one of review, block"),
        ("crash: review, ", "", "rules.0.trouble: lacks `crash`"),
        ("[weapons]", "[sexual]", "sexual in image has a rule already"),
        ("uncovered: review", "uncovered: allow", "rules.1.uncovered: must be one of review, block"),
        ("uncovered: review", "uncovered: review\n    flag_at: 0.1", "has no detectors, thresholds or fallbacks"),
        ("uncovered: review", "colour: red", "rules.1.colour: is unknown here"),
    ],
)
def test_every_fault_is_named_with_its_line_and_its_mend(old: str, new: str, fault: str) -> None:
    """Nothing wrong passes."""
    assert old in GOOD
    with pytest.raises(SpecError) as refused:
        read_policy(GOOD.replace(old, new, 1), "mine", 1)
    assert fault in str(refused.value)


@pytest.mark.parametrize("name", ["unguarded", "Mine", "", "a b"])
def test_a_policy_has_a_plain_name_of_its_own(name: str) -> None:
    """`unguarded` is what names no check; nobody can give it any, or hide behind it."""
    with pytest.raises(UsageError, match="policy_id"):
        read_policy(GOOD, name, 1)


def test_a_policy_that_rests_on_nobody_is_told_so() -> None:
    """A detector that is not installed here, and a category that none of its detectors covers."""
    policy = read_policy(GOOD, "mine", 1)
    assert gaps(policy, [NSFW, NSFW_2]) == []
    [missing] = gaps(policy, [NSFW_2])
    said = "nsfw@1 is not installed here; install forestay[safety] where the judge runs"
    assert (missing.category, missing.reason) == (Category.SEXUAL, said)
    [silent] = gaps(read_policy(GOOD.replace("[sexual]", "[sexual, hate]"), "mine", 1), [NSFW, NSFW_2])
    assert silent.category is Category.HATE
    assert "`uncovered: review` or `block`" in silent.reason


@pytest.mark.threat("ML01:2023", "AML.T0054")
def test_a_stand_in_that_does_not_know_a_category_is_refused() -> None:
    """What it does not name scores nothing, so that trouble would release."""
    degraded = GOOD.replace("crash: review", "crash: {degrade: faces@1, else: review}", 1)
    assert degraded != GOOD
    faces = DetectorInfo("faces@1", "sha256:0", {Modality.IMAGE: frozenset({Category.HATE})}, costly=False)
    [gap] = gaps(read_policy(degraded, "mine", 1), [NSFW, NSFW_2, faces])
    assert (gap.category, gap.modality) == (Category.SEXUAL, Modality.IMAGE)
    assert "faces@1 stands in on crash and does not cover it" in gap.reason
    knows = dataclasses.replace(faces, covers=NSFW.covers)
    assert gaps(read_policy(degraded, "mine", 1), [NSFW, NSFW_2, knows]) == []


def test_the_matrix_shows_its_gaps() -> None:
    """Every category in every modality, whether somebody covers it or not."""
    cells = matrix([NSFW])
    assert len(cells) == len(Category) * len(Modality)
    assert cells[Category.SEXUAL, Modality.IMAGE] == ("nsfw@1",)
    assert cells[Category.WEAPONS, Modality.IMAGE] == ()


def test_every_category_has_its_codes() -> None:
    """One internal word, and what three others call it."""
    assert set(CODES) == set(Category)
    assert {codes.ailuminate for codes in CODES.values()} >= {"vcr", "hte", "ssh", "iwp", "cse", "sxc_prn", "src"}


def test_the_policy_that_comes_along_can_be_read() -> None:
    """And never releases what was not judged."""
    policy = standard_policy()
    assert policy.guards
    assert {fallback.action for rule in policy.rules for fallback in rule.on.values()} <= {Action.REVIEW, Action.BLOCK}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("blur_at: 0.7", "blur_at: is for image and video alone, not for text"),
        ("rewrite_at: 0.7", "`rewrite_at` and `rewrite_with` (the words that stand instead) go together"),
        ("phrases: [x, '']", "phrases.1: must be a phrase"),
    ],
)
def test_changes_are_asked_for_where_they_can_be_made(line: str, fault: str) -> None:
    """A film is not rewritten and a text not blurred; and who rewrites says with what."""
    text = standard_text().replace("    flag_at: 0.5\n", f"    flag_at: 0.5\n    {line}\n", 1)
    with pytest.raises(SpecError) as refused:
        read_policy(text, "mine", 1)
    assert fault in str(refused.value)


def test_changes_are_read() -> None:
    """In their order between throttling and review."""
    text = standard_text().replace(
        "    flag_at: 0.5\n",
        "    flag_at: 0.5\n    rewrite_at: 0.6\n    rewrite_with: a calm sea\n    phrases: [storm]\n",
        1,
    )
    policy = read_policy(text, "mine", 1)
    assert [band.action.value for band in policy.rules[0].bands] == ["flag", "rewrite", "block"]
    assert (policy.rules[0].rewrite_with, policy.rules[0].phrases) == ("a calm sea", ("storm",))
