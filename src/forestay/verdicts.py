"""Judgement of content, in the words of the glossary. Inconclusive is never allow.

No I/O and no rules: `safety` decides. Called by whoever names a verdict.
"""

import enum


class Verdict(enum.StrEnum):
    """What a judge says of content."""

    ALLOW = "allow"
    FLAG = "flag"  # released, and noted
    BLOCK = "block"
    INCONCLUSIVE = "inconclusive"  # nobody could tell: withheld
