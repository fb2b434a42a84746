"""Grants: which verbs on which models a key opens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.fleet.grants import MAX_GRANTS, Grant, Verb, check_grants
from forestay.fleet.keys import Caller, Scope
from forestay.ids import KeyId, ModelId, TenantId

_NAMES = st.sampled_from(["a", "b", "c"])
_MODELS = st.builds(lambda owner, alias: ModelId(f"{owner}/{alias}"), _NAMES, _NAMES)
_PATTERNS = st.one_of(_MODELS, _NAMES.map(lambda owner: f"{owner}/*"), st.just("*"))
_VERBS = st.sampled_from(list(Verb))
_GRANTS = st.builds(Grant, st.frozensets(_PATTERNS, max_size=3), st.frozensets(_VERBS, max_size=3))


def caller(*grants: Grant, narrowed: Grant | None = None) -> Caller:
    """A caller with these grants."""
    return Caller(KeyId("k"), TenantId("t"), frozenset({Scope.API}), grants, narrowed=narrowed)


@pytest.mark.parametrize(
    ("models", "verbs", "asked", "opens"),
    [
        ((), (), (Verb.RUN, "acme/echo"), True),
        (("acme/echo",), (), (Verb.RUN, "acme/echo"), True),
        (("acme/*",), (), (Verb.RUN, "acme/echo"), True),
        (("*",), (), (Verb.RUN, "acme/echo"), True),
        (("acme/echo",), (), (Verb.RUN, "acme/echo2"), False),
        (("acme/echo",), (), (Verb.RUN, "acme2/echo"), False),
        (("acme/*",), (), (Verb.RUN, "acmes/echo"), False),
        ((), ("read",), (Verb.RUN, "acme/echo"), False),
        ((), ("read",), (Verb.READ, "acme/echo"), True),
        (("acme/echo",), ("upload",), (Verb.UPLOAD, None), True),
        (("acme/echo",), ("run",), (Verb.UPLOAD, None), False),
        (("*/echo",), (), (Verb.RUN, "acme/echo"), True),
    ],
)
def test_a_grant_covers_what_its_patterns_and_verbs_say(
    models: tuple[str, ...], verbs: tuple[str, ...], asked: tuple[Verb, str | None], *, opens: bool
) -> None:
    """Nothing is matched by accident: a prefix is no pattern."""
    verb, model = asked
    grant = Grant(frozenset(models), frozenset(Verb(text) for text in verbs))
    assert grant.covers(verb, ModelId(model) if model else None) is opens


@given(_VERBS, _MODELS)
def test_a_key_without_grants_may_everything(verb: Verb, model: ModelId) -> None:
    """As keys made before grants."""
    assert caller().may(verb, model)


@given(st.lists(_GRANTS, min_size=1, max_size=3), _GRANTS, _VERBS, _MODELS)
def test_one_more_grant_never_takes_away(grants: list[Grant], more: Grant, verb: Verb, model: ModelId) -> None:
    """Grants add up."""
    if caller(*grants).may(verb, model):
        assert caller(*grants, more).may(verb, model)


@pytest.mark.threat("API2:2023")
@given(st.lists(_GRANTS, max_size=3), _GRANTS, _VERBS, _MODELS)
def test_a_token_never_opens_more_than_its_key(grants: list[Grant], token: Grant, verb: Verb, model: ModelId) -> None:
    """What a narrowed caller may, its key may, and the token names."""
    if caller(*grants, narrowed=token).may(verb, model):
        assert caller(*grants).may(verb, model)
        assert token.covers(verb, model)


def test_an_empty_grant_is_refused() -> None:
    """Whoever sends an empty list of models does not mean all of them."""
    narrow = Grant(frozenset({"a/b"}))
    assert check_grants([narrow]) == (narrow,)
    with pytest.raises(UsageError, match="grants: each names models"):
        check_grants([narrow, Grant()])


@pytest.mark.parametrize(
    "pattern", ["", "a", "a/", "/b", "a/b/c", "*/b", "a*/b", "**", "a/*/c", "a b/c", "é/b", "a/b*"]
)
def test_what_is_no_pattern_is_named(pattern: str) -> None:
    """The message repeats it."""
    with pytest.raises(UsageError, match="grants"):
        check_grants([Grant(frozenset({pattern}))])


def test_grants_are_bounded() -> None:
    """Neither their number nor their models grow without end."""
    with pytest.raises(UsageError, match="at most"):
        check_grants([Grant(frozenset({"a/b"}))] * (MAX_GRANTS + 1))
    with pytest.raises(UsageError, match="at most"):
        check_grants([Grant(frozenset(f"a/b{number}" for number in range(101)))])
