"""Words of limits, and which rules hold for a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_limits import MemoryLimitStore

from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.model import LimitKind, LimitRule, Spender, checked_rule, parse_subject
from forestay.limits.plan import Rulebook
from forestay.limits.view import RulesView, default_rules, with_defaults
from forestay.settings import Limits

KEY = "1" * 16
CALL = Spender(TenantId("acme"), KeyId(KEY), ModelId("a/one"))


def rule(subject: str, kind: LimitKind = LimitKind.IN_FLIGHT, amount: float = 2) -> LimitRule:
    """A rule in one line."""
    return checked_rule(parse_subject(subject), kind, amount)


def found(rules: list[LimitRule], *, direct: bool = True, call: Spender = CALL) -> list[list[str]]:
    """Which subjects are checked, a list a plan."""
    return [[str(check.subject) for check in plan.checks] for plan in Rulebook(rules).plans(call, direct=direct)]


GOOD = ["tenant:acme", f"key:{KEY}", "model:owner/alias", "fleet:*", "tenant:*", "key:public"]
BAD = ["", "acme", "tenant:", "tenant:ACME", "tenant:a b", "key:acme", "model:alias", "fleet:acme", "x:y", "a:\x00"]


@pytest.mark.parametrize("text", GOOD)
def test_a_subject_is_read_as_it_is_written(text: str) -> None:
    """Each scope has its own form of id."""
    assert str(parse_subject(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_a_subject_of_another_form_is_refused_with_the_forms(text: str) -> None:
    """The message shows what may be written."""
    with pytest.raises(UsageError, match=r"subject: .*tenant:acme, key:<id>, model:owner/alias, fleet"):
        parse_subject(text)


@pytest.mark.parametrize(
    ("kind", "amount", "burst", "field"),
    [
        (LimitKind.REQUESTS_PER_SECOND, 0, None, "requests_per_second"),
        (LimitKind.REQUESTS_PER_SECOND, float("nan"), None, "requests_per_second"),
        (LimitKind.MONEY_PER_MONTH, float("inf"), None, "money_per_month"),
        (LimitKind.GPU_SECONDS_PER_MONTH, -1, None, "gpu_seconds_per_month"),
        (LimitKind.IN_FLIGHT, 1.5, None, "in_flight"),
        (LimitKind.IN_FLIGHT, 2, 3, "burst"),
        (LimitKind.REQUESTS_PER_SECOND, 1, 0, "burst"),
        (LimitKind.REQUESTS_PER_SECOND, 1, 1.5, "burst"),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_its_name(
    kind: LimitKind, amount: float, burst: float | None, field: str
) -> None:
    """The error names the field."""
    with pytest.raises(UsageError) as raised:
        checked_rule(parse_subject("fleet"), kind, amount, burst)
    assert raised.value.field == field


def test_without_a_burst_a_seconds_worth_may_come_at_once() -> None:
    """At least one."""
    assert checked_rule(parse_subject("fleet"), LimitKind.REQUESTS_PER_SECOND, 20.5).burst == 21
    assert checked_rule(parse_subject("fleet"), LimitKind.REQUESTS_PER_SECOND, 0.1).burst == 1


def test_a_call_without_rules_has_no_plan() -> None:
    """Neither has one whose tenant is not limited."""
    assert found([]) == []
    assert found([rule("tenant:other"), rule("model:a/two")]) == []


def test_key_and_tenant_are_one_plan_model_and_fleet_another() -> None:
    """All of them hold."""
    rules = [rule("fleet"), rule("model:a/one"), rule("tenant:acme"), rule(f"key:{KEY}")]
    assert found(rules) == [[f"key:{KEY}", "tenant:acme"], ["model:a/one", "fleet:*"]]


def test_a_rule_of_ones_own_stands_before_that_of_each_kind_by_kind() -> None:
    """`tenant:*` still holds for the kinds that the tenant has none of."""
    rules = [
        rule("tenant:*", LimitKind.IN_FLIGHT, 1),
        rule("tenant:*", LimitKind.REQUESTS_PER_SECOND, 5),
        rule("tenant:acme", LimitKind.IN_FLIGHT, 9),
    ]
    (plan,) = Rulebook(rules).plans(CALL, direct=True)
    assert [(check.kind, check.rule.amount, str(check.subject)) for check in plan.checks] == [
        (LimitKind.REQUESTS_PER_SECOND, 5, "tenant:acme"),
        (LimitKind.IN_FLIGHT, 9, "tenant:acme"),
    ]


def test_a_queued_request_is_never_refused_for_what_is_in_flight() -> None:
    """It waits for its turn at the claim."""
    assert found([rule("tenant:acme")], direct=False) == []
    both = [rule("tenant:acme"), rule("tenant:acme", LimitKind.REQUESTS_PER_SECOND)]
    (plan,) = Rulebook(both).plans(CALL, direct=False)
    assert [check.kind for check in plan.checks] == [LimitKind.REQUESTS_PER_SECOND]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["key:*", f"key:{KEY}", "tenant:*", "tenant:acme", "tenant:other", "model:a/one", "fleet"]),
            st.sampled_from(list(LimitKind)),
            st.integers(1, 100),
        )
    )
)
def test_each_scope_and_kind_is_checked_at_most_once(rules: list[tuple[str, LimitKind, int]]) -> None:
    """And every rule of the call's own subjects is."""
    made = {(subject, kind): rule(subject, kind, amount) for subject, kind, amount in rules}
    plans = Rulebook(made.values()).plans(CALL, direct=True)
    checks = [(check.subject.scope, check.kind) for plan in plans for check in plan.checks]
    assert len(checks) == len(set(checks))
    own = {
        one for (subject, _), one in made.items() if subject in {f"key:{KEY}", "tenant:acme", "model:a/one", "fleet"}
    }
    assert own <= {check.rule for plan in plans for check in plan.checks}


@given(factor=st.floats(0.01, 1.0), amount=st.integers(1, 1000))
def test_a_throttled_caller_has_less_of_every_rate_and_no_less_of_its_budgets(factor: float, amount: int) -> None:
    """Its own limits alone; one call may still be in flight, and one come at once."""
    kinds = [rule(subject, kind, amount) for subject in ("tenant:acme", "model:a/one") for kind in LimitKind]
    usual, slow = (Rulebook(kinds).plans(CALL, direct=True, factor=share) for share in (1.0, factor))
    for before, after in zip(usual[0].checks, slow[0].checks, strict=True):
        if before.kind in {LimitKind.GPU_SECONDS_PER_MONTH, LimitKind.MONEY_PER_MONTH}:
            assert after.rule == before.rule
        else:
            assert after.rule.amount <= before.rule.amount
            assert after.kind is not LimitKind.IN_FLIGHT or after.rule.amount >= 1
            assert after.rule.burst >= min(1, before.rule.burst)
    assert [check.rule for check in usual[1].checks] == [check.rule for check in slow[1].checks]


def test_defaults_of_the_settings_hold_for_every_tenant_until_a_rule_is_stored() -> None:
    """Kind by kind; none by default."""
    assert default_rules(Limits()) == []
    defaults = default_rules(Limits(default_requests_per_second=5, default_burst=7, default_money_per_month=2.5))
    assert [(str(one.subject), one.amount, one.burst) for one in defaults] == [("tenant:*", 5, 7), ("tenant:*", 250, 0)]
    stored = [rule("tenant:*", LimitKind.REQUESTS_PER_SECOND, 1)]
    assert [one.amount for one in with_defaults(stored, defaults)] == [1, 250]


def test_a_default_out_of_bounds_names_its_variable() -> None:
    """Not the field inside."""
    with pytest.raises(UsageError, match="FORESTAY_DEFAULT_IN_FLIGHT: must be above 0"):
        default_rules(Limits(default_in_flight=-3))


async def test_a_changed_rule_is_read_and_a_silent_store_leaves_the_last_ones() -> None:
    """The view keeps what it knows."""
    store = MemoryLimitStore(SystemClock())
    view = RulesView(store, Limits(), SystemClock(), "g1")
    await store.beat("g2", 60.0)
    await store.put([rule("tenant:acme")], actor="human:k", reason="")
    await view.refresh()
    assert view.book.plans(CALL, direct=True)
    assert view.share() == 0.5
    store.silent = True
    with pytest.raises(Exception, match="silent"):
        await view.refresh()
    assert view.book.plans(CALL, direct=True)
    store.silent = False
    await store.remove(parse_subject("tenant:acme"), None, actor="human:k", reason="")
    await view.refresh()
    assert not view.book.plans(CALL, direct=True)
