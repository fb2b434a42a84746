"""What `up` says and the demo does where this machine cannot isolate models."""

import pytest

from forestay.cli.unisolated import WAIVER, waiver_of_demo, warning_of_up

SHORTFALL = "this machine cannot keep a process from the network (only Linux has network namespaces)"


def test_the_demo_runs_where_models_cannot_be_isolated_and_says_so() -> None:
    """It waives the isolation of its own models, names what is missing, and waives nothing elsewhere."""
    variables, told = waiver_of_demo(SHORTFALL, {})
    assert variables == {WAIVER: "true"}
    assert SHORTFALL in told
    assert WAIVER in told
    assert waiver_of_demo("", {}) == ({}, "")


@pytest.mark.parametrize("shortfall", ["", SHORTFALL])
def test_what_the_user_has_said_about_isolation_holds_in_the_demo(shortfall: str) -> None:
    """A user who forbids models that are not isolated gets none."""
    assert waiver_of_demo(shortfall, {WAIVER: "false"}) == ({WAIVER: "false"}, "")


def test_up_tells_at_its_start_that_models_will_be_refused_and_how_to_go_on() -> None:
    """Before anyone waits for a model; with the waiver it goes on saying that nothing is isolated."""
    refused = warning_of_up(SHORTFALL, waived=False)
    assert "refused" in refused
    assert SHORTFALL in refused
    assert f"{WAIVER}=true" in refused
    waived = warning_of_up(SHORTFALL, waived=True)
    assert waived.startswith("not isolated")
    assert "do not trust" in waived
    assert warning_of_up("", waived=True) == warning_of_up("", waived=False) == ""
