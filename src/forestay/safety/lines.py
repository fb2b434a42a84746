"""What becomes of the lines that model code prints: told, judged by a policy's cheaper detectors, or withheld.

Lines come by the hundred and in pieces of their own, so that they are judged by what a rule of text names for overload
(`degrade`), where it names one, and by the rule's own detectors otherwise; with the rule's thresholds, within a second.
Pure. Decides the mode of a request, who judges, and how lines are put together to be judged: a word that is spread
over two lines, or over two batches, is seen whole. Called by `guard` and by the worker's `line_judging`.
"""

import dataclasses
from collections.abc import Sequence

from forestay.safety.model import Trouble
from forestay.safety.policy import Policy, Rule
from forestay.safety.taxonomy import Modality

LINES_SECONDS = 1.0
PIECE_CHARS = 2_000  # of lines that are judged as one text
OVERLAP_CHARS = 200  # of what was told before that are judged along
_MODES = ("pass", "judge", "withhold")  # the strictest last


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Lines `first` up to, not including, `last`, as one text."""

    first: int
    last: int
    text: str


def mode_of(policies: Sequence[Policy | None]) -> str:
    """Return pass, judge or withhold; of several policies the strictest, and of one that cannot be read withhold.

    Where a policy has no rule for text there is nothing to judge lines by: it lets them pass unless it withholds them.
    """
    asked = ["withhold" if policy is None else _mode(policy) for policy in policies]
    return max(asked, key=_MODES.index, default="pass")


def for_lines(policy: Policy) -> Policy:
    """Return the rules by which lines are judged."""
    rules = () if policy.logs == "pass" else tuple(map(_cheaper, policy.rules_for(Modality.TEXT)))
    return dataclasses.replace(policy, rules=rules, deadline_seconds=min(policy.deadline_seconds, LINES_SECONDS))


def pieces_of(messages: Sequence[str], before: str) -> list[Piece]:
    """Put lines together to texts, each with the end of what stands before it; a longer line is a text by itself."""
    made: list[Piece] = []
    first, size = 0, 0
    for number, message in enumerate(messages):
        if number > first and size + len(message) > PIECE_CHARS:
            made.append(_piece(messages, first, number, before))
            before = end_of(messages[first:number])
            first, size = number, 0
        size += len(message) + 1
    if messages:
        made.append(_piece(messages, first, len(messages), before))
    return made


def end_of(messages: Sequence[str]) -> str:
    """Return the last characters of lines."""
    return "\n".join(messages)[-OVERLAP_CHARS:]


def _piece(messages: Sequence[str], first: int, last: int, before: str) -> Piece:
    text = "\n".join(messages[first:last])
    return Piece(first, last, f"{before}\n{text}" if before else text)


def _mode(policy: Policy) -> str:
    return "pass" if policy.logs == "judge" and not policy.rules_for(Modality.TEXT) else policy.logs


def _cheaper(rule: Rule) -> Rule:
    """Return the rule with its own cheaper detector in the place of those that it names."""
    if not rule.detectors or not rule.on[Trouble.OVERLOAD].detector_id:
        return rule
    return dataclasses.replace(rule, detectors=(rule.on[Trouble.OVERLOAD].detector_id,))
