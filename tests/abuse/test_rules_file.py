"""Rules from YAML: what is read, and what each fault is told as."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.abuse.rules import All, Compare, Op
from forestay.abuse.rules_file import default_rules, default_text, read_rules
from forestay.abuse.vocabulary import SIGNALS, Per
from forestay.fleet.spec_yaml import SpecError
from forestay.fleet.standing import StandingKind

RULE = """\
version: 1
counters:
  - {id: dear_calls, per: key, sum: seconds, window: 1h, where: {model: acme/dear, accepted: true}}
rules:
  - id: thief
    code: key_leak
    per: key
    when:
      all:
        - {signal: stranger.score, at_least: 7}
        - {counter: dear_calls, above: 10}
        - not: {label: known}
    then:
      standing: suspend
      for: 24h
      label: {name: known, for: 7d}
      reason: "{stranger.score} nats, {dear_calls} s"
"""


def faults_of(text: str) -> list[str]:
    """Every fault of a file, as it is told."""
    with pytest.raises(SpecError) as caught:
        read_rules(text, "rules.yaml")
    return list(caught.value.faults)


def test_a_rule_is_read_as_it_is_written() -> None:
    """Conditions, counters, windows, labels and ends."""
    rules = read_rules(RULE, "rules.yaml")
    [rule] = rules.rules
    assert (rule.id, rule.code, rule.per, rule.then.kind) == ("thief", "key_leak", Per.KEY, StandingKind.SUSPEND)
    assert rule.then.lasting.total_seconds() == 86_400
    assert isinstance(rule.when, All)
    assert rule.when.inner[0] == Compare("stranger.score", Op.AT_LEAST, 7.0)
    [counter] = rules.counters
    assert (counter.measure, counter.window_seconds, counter.where["accepted"]) == ("seconds", 3600.0, True)


def test_the_rules_that_come_along_are_valid_and_always_end() -> None:
    """The file inside the package passes every check that yours must pass."""
    rules = default_rules()
    assert len(rules.rules) >= 10
    assert all(rule.then.lasting.total_seconds() > 0 for rule in rules.rules)
    assert "eval" not in default_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("version: 1", "version: 9"), "1: version: must be 1"),
        (("stranger.score, at_least", "stranger.skore, at_least"), "there is no signal stranger.skore"),
        (("per: key\n    when", "per: network\n    when"), "stranger.score is about a key, the rule is per network"),
        (("at_least: 7", "at_least: 700"), "never holds"),
        (("at_least: 7", "at_least: 0"), "always holds"),
        (("at_least: 7", "at_most: 7"), "more of it would decide less"),
        (("at_least: 7", "at_least: seven"), "rules.0.when.all.0.at_least: must be a number"),
        (("at_least: 7", "at_least: 7, above: 6"), "exactly one comparison"),
        (("at_least: 7", "resembles: 7"), "is no field here"),
        (("      for: 24h\n", ""), "a standing needs an end"),
        (("for: 24h", "for: 400d"), "must be a duration such as 24h or 7d, at most 30d"),
        (("for: 24h", "for: ever"), "must be a duration"),
        (("standing: suspend", "standing: hang"), "must be one of watch, refer, throttle, step_up, suspend"),
        (("standing: suspend", "standing: throttle"), "a throttle needs a `factor`"),
        (("standing: suspend", "standing: watch\n      factor: 0.5"), "belongs to `standing: throttle` alone"),
        (("standing: suspend", "standing: watch\n      freeze_results: true"), "belongs to `standing: suspend` alone"),
        (("label: known", "label: unheard"), "no rule gives the label unheard"),
        (("counter: dear_calls", "counter: cheap_calls"), "there is no counter cheap_calls"),
        (("{stranger.score} nats", "{the prompt} nats"), "is neither a signal nor a counter"),
        (("sum: seconds", "sum: seconds, count: calls"), "exactly one of"),
        (("window: 1h", "window: 60d"), "at most 7d"),
        (("accepted: true", "accepted: 'yes'"), "must be true or false"),
        (("id: dear_calls", "id: stranger.score"), "must be lower-case letters"),
        (("code: key_leak", "code: KEY LEAK"), "must be lower-case letters"),
        (("- not: {label: known}", "- not: {label: known}\n        - {label: known}"), "for its absence"),
        (("    then:", "    otherwise: 1\n    then:"), "is no field here"),
        (("    code: key_leak\n", ""), "lacks the field `code`"),
        (("- not:", "- none:"), "is no field here"),
        (("version: 1", "version: 1\nversion: 1"), "written twice"),
        (("version: 1", "version: &a 1"), "anchors, aliases and tags are not read"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_fault_is_told_with_its_line_and_its_mend(change: tuple[str, str], told: str) -> None:
    """One change, one precise complaint."""
    assert change[0] in RULE
    found = faults_of(RULE.replace(*change, 1))
    assert any(told in fault for fault in found), found
    assert all(fault.startswith("rules.yaml:") and fault.split(":")[1].isdigit() for fault in found)


def test_bounds_that_exclude_one_another_are_a_contradiction() -> None:
    """Age is context and may be bounded on both sides; not by an empty range."""
    text = RULE.replace(
        "- not: {label: known}", "- {signal: key.age_days, above: 9}\n        - {signal: key.age_days, below: 3}"
    )
    assert any(
        "never hold together" in fault for fault in faults_of(text.replace("      label: {name: known, for: 7d}\n", ""))
    )


def test_a_rule_that_another_one_always_forestalls_is_a_fault() -> None:
    """It would never decide anything."""
    twin = """\
  - id: weaker
    code: key_leak
    per: key
    when: {all: [{signal: stranger.score, at_least: 9}, {signal: stranger.calls, at_least: 5}]}
    then: {standing: watch, for: 1h, reason: "x"}
  - id: first
    code: key_leak
    per: key
    when: {signal: stranger.score, at_least: 8}
    then: {standing: suspend, for: 2h, reason: "x"}
"""
    [fault] = faults_of(f"version: 1\nrules:\n{twin}")
    assert fault.startswith("rules.yaml:3:")
    assert "first holds whenever it does" in fault


def test_every_fault_is_told_at_once() -> None:
    """Nobody mends a file a line at a time."""
    text = RULE.replace("at_least: 7", "at_least: x").replace("for: 24h", "for: ever").replace("suspend", "hang")
    assert len(faults_of(text)) >= 3


def test_conditions_may_not_nest_without_end() -> None:
    """Depth is bounded, and so is the file."""
    deep = "{not: " * 20 + "{label: known}" + "}" * 20
    assert any("nest at most" in fault for fault in faults_of(RULE.replace("not: {label: known}", f"not: {deep}")))
    assert any("larger than" in fault for fault in faults_of(RULE + "#" * 300_000))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["version", "rules", "counters", "when", "then", "all", "signal", "id"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_yaml_says_is_read_or_refused_with_faults(value: object) -> None:
    """Never an error of ours."""
    with contextlib.suppress(SpecError):
        rules = read_rules(json.dumps(value), "rules.yaml")
        assert all(rule.per in Per for rule in rules.rules)


def test_the_vocabulary_is_whole() -> None:
    """Each word has a subject, a unit, a bound and a sentence."""
    for signal in SIGNALS.values():
        assert signal.per
        assert signal.most > 0
        assert signal.doc.endswith(".")
