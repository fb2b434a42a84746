"""Texts under a policy on this machine: as a gateway judges an input, other words included."""

from forestay.clock import SystemClock
from forestay.safety.policy import Action
from forestay.safety.policy_file import read_policy
from forestay.safety.text_replay import TextReplay, local_detectors

POLICY = """version: 1
deadline: 5s
streams: judge
rules:
  - modality: text
    categories: [violence]
    detectors: [{detector}]
    {bands}
    trouble: {{crash: review, timeout: review, overload: review, language: review, unreadable: block}}
"""
BLOCKS = "block_at: 0.9"
REWRITES = "rewrite_at: 0.3\n    rewrite_with: a thing\n    phrases: [MARKER-52D1]"


async def action(bands: str, text: str, detector: str = "text-lexicon@1") -> Action | None:
    """What becomes of a text."""
    policy = read_policy(POLICY.format(bands=bands, detector=detector), "p", 1)
    assert local_detectors([policy]) == {}
    return await TextReplay(SystemClock(), {}).action(policy, text)


async def test_a_text_is_judged_by_the_detectors_of_the_policy() -> None:
    """The marker stands for a category; a plain text passes."""
    assert await action(BLOCKS, "MARKER-52D1") is Action.BLOCK
    assert await action(BLOCKS, "a harbour at dawn") is Action.ALLOW


async def test_a_text_goes_on_in_other_words_only_if_those_pass() -> None:
    """What the rewriter cannot mend is stopped, as the gateway stops it."""
    assert await action(REWRITES, "a MARKER-52D1 at dawn") is Action.ALLOW
    assert await action(REWRITES.replace("MARKER-52D1]", "else]"), "a MARKER-52D1 at dawn") is Action.BLOCK


async def test_a_detector_that_does_not_run_here_makes_a_text_unknown() -> None:
    """Never allowed for want of a judge."""
    assert await action(BLOCKS, "a harbour at dawn", detector="somebody@1") is None
