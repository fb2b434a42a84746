"""The parts of the scenario of objectives that need no platform: traffic, files, pictures, the comparison."""

import json
from pathlib import Path

import pytest

from forestay.alerts.rules_file import read_routing
from forestay.demo import burning, studio
from forestay.demo.budget_picture import budget_left, burn_rates, render_budgets
from forestay.demo.promises import SLO
from forestay.demo.second_opinion import second_opinion
from forestay.demo.stage import Broken
from forestay.slo.lint import Level, Surroundings, lint_slos
from forestay.slo.model import Counts, Minute
from forestay.slo.slo_file import read_slos

NOW = Minute(29_000_000)


def test_every_promise_has_its_step() -> None:
    """But for the start and the stop, which every scenario has."""
    assert [name for name, _ in burning.STEPS] == [name for name in SLO if name not in {"start", "stop"}]


def test_the_facts_say_what_the_counts_say_each_under_an_id_of_its_own() -> None:
    """One line a request, in its minute."""
    past = studio.history(NOW)
    told = [json.loads(line) for line in studio.facts(past)]
    assert len({fact["id"] for fact in told}) == len(told)
    for model, minutes in past.items():
        mine = [fact for fact in told if fact["model"] == model]
        assert len(mine) == sum(count.total for count in minutes.values())
        assert sum(fact["status"] == 500 for fact in mine) == sum(count.bad for count in minutes.values())


def test_its_slos_and_routes_are_good_files() -> None:
    """Without a fault or an error of sense; every alert is told at once."""
    slos = read_slos(studio.slos(), "demo.yaml")
    assert [slo.subject.name for slo in slos] == list(studio.MODELS)
    assert not [flaw for flaw in lint_slos(slos, Surroundings(None, None, None)) if flaw.level is Level.ERROR]
    routing = read_routing(studio.routes("http://127.0.0.1:8099/hook"), "alerts.yaml", Path())
    assert routing.rules.routes[-1].receivers == ("phone",)


def test_budget_and_burn_are_those_of_the_minutes() -> None:
    """One bad request of a hundred spends the whole budget of 99 %, at the pace that spends exactly it."""
    kept = [Counts(good=50), Counts(good=49, bad=1), Counts()]
    assert budget_left(kept) == pytest.approx([1.0, 0.0, 0.0])
    assert burn_rates(kept) == pytest.approx([0.0, 1.0, 1.0])
    page = render_budgets({"a/b": {Minute(1): Counts(good=1)}}, {"forestay slo status": "<all>"})
    assert page.count("<svg") == 2
    assert "&lt;all&gt;" in page


def test_a_second_opinion_that_differs_is_told(tmp_path: Path) -> None:
    """The poster still pages at the end of the history; a standing that says otherwise breaks the promise."""
    minutes, last = {studio.POSTER: studio.history(NOW)[studio.POSTER]}, Minute(NOW - 1)
    assert "promtool" in second_opinion(minutes, last, {studio.POSTER: "page"}, tmp_path)
    assert (tmp_path / "rules.yaml").exists()
    with pytest.raises(Broken, match="demo/poster stands at kept"):
        second_opinion(minutes, last, {studio.POSTER: "kept"}, tmp_path)
