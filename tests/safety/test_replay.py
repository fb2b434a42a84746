"""Replays: other thresholds on the scores that were recorded, and what that would have changed."""

import pytest
from tests.safety.test_chain import record

from forestay.safety.policy import Action
from forestay.safety.policy_file import read_policy
from forestay.safety.records import CheckRecord, VerdictRecord
from forestay.safety.replay import Replay

POLICY = """\
version: 1
deadline: 1s
rules:
  - modality: text
    categories: [violence]
    detectors: [words@1]
    block_at: {block}
    trouble: {{crash: review, timeout: review, overload: review, language: review, unreadable: block}}
"""


def judged(number: int, score: float | None, action: str, detector: str = "words@1") -> VerdictRecord:
    """A record of one text, with a score or with none."""
    trouble = "crash" if score is None else None
    scores = {} if score is None else {"violence": score}
    check = CheckRecord(detector, "", "prompt", "text", "violence", score, 0.0, action, trouble, 0.0, scores)
    made = record(number)
    return type(made)(
        **{**{name: getattr(made, name) for name in made.__struct_fields__}, "checks": [check], "action": action}
    )


def replay(block: float, *records: VerdictRecord, labels: dict[str, bool] | None = None) -> Replay:
    """Replay records under a threshold."""
    played = Replay(read_policy(POLICY.format(block=block), "new", 1), labels or {})
    for item in records:
        played.take(item)
    return played


def test_a_stricter_policy_changes_what_lies_between_the_thresholds() -> None:
    """Only that, and with the reason."""
    played = replay(0.5, judged(1, 0.4, "allow"), judged(2, 0.6, "allow"), judged(3, 0.95, "block"))
    assert played.judged == 3
    [change] = played.changes
    assert (change.record.verdict_id.int, change.before, change.after) == (2, Action.ALLOW, Action.BLOCK)
    assert "0.600 reached 0.5" in change.reason


def test_trouble_stays_trouble() -> None:
    """What was not scored then is not scored now: the new policy's fallback answers it."""
    assert replay(0.5, judged(1, None, "block")).changes[0].after is Action.REVIEW


def test_what_was_not_asked_cannot_be_replayed() -> None:
    """It is counted apart, and neither called a change nor none."""
    played = replay(0.5, judged(1, 0.9, "allow", detector="others@1"))
    assert (played.judged, played.unknown, played.changes) == (0, 1, [])


def test_labels_give_precision_and_recall_of_both() -> None:
    """Stopped and bad, stopped and good, passed and bad."""
    records = [judged(2 * n, score, "allow") for n, score in enumerate((0.2, 0.6, 0.7, 0.9), 1)]
    truth = [False, True, False, True]
    labels = {str(item.request_id): bad for item, bad in zip(records, truth, strict=True)}
    played = replay(0.5, *records, labels=labels)
    assert (played.before.precision, played.before.recall) == (None, 0.0)
    assert played.after.precision == pytest.approx(2 / 3)
    assert played.after.recall == 1.0
