"""The words of the rule language: every signal with its unit, bounds, and whether more of it means worse.

A signal is *evidence* when more of it can only mean worse, and *context* otherwise. Rules may ask evidence for at least
so much and never for at most so much: so a decision can never soften because the evidence grew. Pure data; the
reference page is written from it. Read by `rules_file` (checks), `signals` (values) and the docs.
"""

import dataclasses
import enum
from collections.abc import Mapping


class Per(enum.StrEnum):
    """Whom a signal, a counter or a rule is about."""

    KEY = "key"
    TENANT = "tenant"
    NETWORK = "network"


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """One word: about whom, in which unit, within which bounds."""

    name: str
    per: frozenset[Per]
    evidence: bool
    unit: str
    most: float  # that it can reach; the least is 0
    doc: str


_ANY = 1e12
_KEY, _TENANT, _NETWORK = frozenset({Per.KEY}), frozenset({Per.KEY, Per.TENANT}), frozenset({Per.NETWORK})


def _evidence(name: str, per: frozenset[Per], unit: str, most: float, doc: str) -> Signal:
    return Signal(name, per, evidence=True, unit=unit, most=most, doc=doc)


def _context(name: str, per: frozenset[Per], unit: str, doc: str) -> Signal:
    return Signal(name, per, evidence=False, unit=unit, most=_ANY, doc=doc)


_TABLE = (
    _context("key.calls", _KEY, "calls", "Calls of the key since it was first seen."),
    _context("key.age_days", _KEY, "days", "Days since the key was first seen."),
    _evidence("key.idle_days", _KEY, "days", _ANY, "How long the key was idle before it was used again lately."),
    _evidence(
        "stranger.score", _KEY, "nats", 30.0, "How much more a stranger's than its owner's the worst guise looks."
    ),
    _evidence("stranger.calls", _KEY, "calls", _ANY, "Calls in that guise."),
    _evidence("stranger.places", _KEY, "networks", 12, "Far networks (/16, /32) that the guise was seen in."),
    _evidence("stranger.parallel", _KEY, "hours", _ANY, "Hours in which the owner called beside the guise."),
    _evidence("stranger.hasty", _KEY, "ratio", _ANY, "The guise's calls of this hour against the owner's peak hour."),
    _evidence("velocity.ratio", _KEY, "ratio", _ANY, "This hour's calls against the peak hour of the 14 days before."),
    _evidence("velocity.nats", _KEY, "nats", 60.0, "Evidence that hours are on average above the former peak, calls."),
    _evidence("spend.ratio", _KEY, "ratio", _ANY, "This hour's device-seconds against the former peak hour."),
    _evidence("spend.nats", _KEY, "nats", 60.0, "Evidence that hours are on average above the former peak, spend."),
    _evidence("spend.hour_seconds", _KEY, "seconds", _ANY, "Device-seconds of this hour, as predicted."),
    _evidence(
        "spend.new_models", _KEY, "share", 1.0, "Share of this hour's device-seconds on models new since yesterday."
    ),
    _evidence("probing.variants", _KEY, "prompts", 48, "Distinct prompts near one refused within a day."),
    _evidence("probing.meanings", _KEY, "prompts", 48, "The same by meaning; 0 unless meanings are hashed."),
    _evidence("probing.refused", _KEY, "prompts", 96, "Distinct prompts refused for their content within a day."),
    _evidence("probing.nats", _KEY, "nats", 60.0, "Evidence that more than one in seven prompts is refused."),
    _context("extraction.queries", _KEY, "calls", "Prompts seen of the key."),
    _evidence(
        "extraction.fresh_nats", _KEY, "nats", 60.0, "Evidence that its prompts have fewer neighbours than people's."
    ),
    _evidence("extraction.families", _KEY, "families", 160, "Effective number of seeds that it returns to."),
    _evidence("extraction.rounds_nats", _KEY, "nats", 60.0, "Evidence that it returns to its seeds in turn."),
    _evidence("extraction.returns", _KEY, "share", 1.0, "Share of prompts that return to a seed that was left."),
    _context("extraction.leap", _KEY, "degrees", "Mean angle between meanings of successive prompts, where hashed."),
    _context("extraction.repeats", _KEY, "share", "Share of prompts made before, word for word."),
    _evidence("extraction.same_shape", _KEY, "share", 1.0, "Share of requests that are alike beside their text."),
    _evidence("extraction.coverage", _KEY, "share", 1.0, "Share of its ground that is still new (Good-Turing)."),
    _evidence("guessing.opened", _KEY, "credentials", 256, "Others that its network tried within a day of its use."),
    _context("tenant.age_days", _TENANT, "days", "Days since the tenant was first seen."),
    _evidence("tenant.calls_day", _TENANT, "calls", _ANY, "Calls of the busier of today and yesterday."),
    _evidence("tenant.limited", _TENANT, "refusals", _ANY, "Refusals by a limit, fading by a third a day."),
    _evidence("sibling.tenants", _TENANT, "tenants", 64, "Other tenants with the same prompts from the same places."),
    _evidence("sibling.in_step", _TENANT, "share", 1.0, "Share of what is shared that came within two minutes."),
    _evidence("sibling.handovers", _TENANT, "turns", _ANY, "Times it went on where another was stopped by its limit."),
    _evidence("sibling.born_together", _TENANT, "tenants", 64, "Those of them first seen within two days of it."),
    _evidence("cluster.tenants", _TENANT, "tenants", 64, "Other tenants with the same prompts."),
    _evidence("cluster.share", _TENANT, "share", 1.0, "Share of its calls of the day whose prompts others share."),
    _evidence("campaign.tenants", _TENANT, "tenants", 64, "Those that began within two days, by the same client."),
    _evidence("guessing.hour", _NETWORK, "credentials", 256, "Distinct credentials guessed within an hour."),
    _evidence("guessing.day", _NETWORK, "credentials", 256, "Distinct credentials guessed within a day."),
    _evidence("guessing.networks", _NETWORK, "networks", 512, "Networks in which the same kind of client guesses."),
    _context("guessing.good", _NETWORK, "calls", "Proven calls from the network within a day."),
)
SIGNALS: Mapping[str, Signal] = {item.name: item for item in _TABLE}
