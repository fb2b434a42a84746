"""The exported rules, judged by Prometheus' own tool where it is installed."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from tests.slo.objectives import slo

from forestay.slo.burn_rules import Severity
from forestay.slo.composite import Composites
from forestay.slo.decide import pairs_of
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Measure, Minute, Part, Series, Sli, SliKind, Slo, SloId, Subject, SubjectKind
from forestay.slo.prometheus import render_rules
from forestay.slo.promtool_tests import alerts, input_series, play, render_tests
from forestay.telemetry.metrics import table

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
WATCHED = slo(
    sli=Sli(SliKind.RATIO, Measure.AVAILABILITY, series=Series("req_total", bad='req_total{outcome="failed"}'))
)


def composite(*parts: Part) -> Slo:
    """A composite of these parts."""
    return dataclasses.replace(slo(), slo_id=SloId("whole"), subject=Subject(SubjectKind.COMPOSITE), parts=parts)


def promtool(folder: pathlib.Path, *words: str) -> str:
    """Run promtool in a folder; return what it said, which must be success."""
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    return ran.stdout


def test_what_can_not_be_exported_is_said() -> None:
    """An SLO without counters has no rules, one of slices alerts on its evidence alone; each has a line."""
    sliced = slo(sli=Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=5, slice_objective=0.9))
    text, losses = render_rules([slo(), sliced])
    [page, ticket] = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert page["expr"] == 'max by (slo) (forestay_slo_evidence_ratio{slo="digits",severity="page"}) >= 1'
    assert ticket["alert"] == "SloTicket"
    assert [loss.field for loss in losses] == ["sli.series", "sli.kind"]


def test_a_composite_is_exported_where_all_of_its_parts_are() -> None:
    """Each once and with counters; else it is said which part is in the way."""
    bare = dataclasses.replace(slo(), slo_id=SloId("bare"))
    for parts, words in (
        ((Part(SloId("digits")), Part(SloId("bare"))), "its part bare has no rules"),
        ((Part(SloId("gone")),), "its part gone has no rules"),
        ((Part(SloId("digits")), Part(SloId("digits"))), "its part digits is there 2 times"),
    ):
        [loss] = [one for one in render_rules([WATCHED, bare, composite(*parts)])[1] if one.slo == "whole"]
        assert loss.says.startswith(words)
    assert render_rules([WATCHED, composite(Part(SloId("digits")))])[1] == ()


def test_an_alert_carries_owner_and_runbook() -> None:
    """Who is told, and where to read on."""
    made = dataclasses.replace(WATCHED, alerting=dataclasses.replace(WATCHED.alerting, runbook="https://run/1"))
    groups = yaml.safe_load(render_rules([made])[0])["groups"]
    [page] = [rule for rule in groups[0]["rules"] if rule.get("alert") == "SloPage"]
    assert page["labels"]["owner"] == "vision"
    assert page["annotations"]["runbook_url"] == "https://run/1"


@needs_promtool
def test_exported_rules_are_valid_and_pass_the_tests_that_come_with_them(tmp_path: pathlib.Path) -> None:
    """`promtool check rules` and `promtool test rules` agree with what was generated."""
    (tmp_path / "rules.yaml").write_text(render_rules([WATCHED])[0], encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(render_tests([WATCHED], "rules.yaml"), encoding="utf-8")
    assert "SUCCESS" in promtool(tmp_path, "check", "rules", "rules.yaml")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


@needs_promtool
def test_prometheus_pages_in_the_minutes_in_which_the_engine_does(tmp_path: pathlib.Path) -> None:
    """Two hours of thin and busy traffic, harm, a gap and recovery: no minute differs; the gauge alone can page too."""
    chance = np.random.default_rng(8)
    total = np.concatenate([chance.poisson(12, 400), chance.poisson(9, 120)]).astype(np.float64)
    share = np.where((np.arange(520) > 420) & (np.arange(520) < 450), 0.3, 0.0005)
    bad = chance.binomial(total.astype(np.int64), share).astype(np.float64)
    played = play(WATCHED, bad, total)
    gauge = np.where(np.arange(520) == 300, 1.0, 0.0)
    expected = played.rules_open | (gauge >= 1)
    checks = [
        {
            "expr": alerts(WATCHED),
            "eval_time": f"{minute + 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if expected[minute] else [],
        }
        for minute in (*range(295, 305), *range(400, 520))
    ]
    test = {"interval": "1m", "input_series": input_series(WATCHED, bad, total, gauge), "promql_expr_test": checks}
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "rules.yaml").write_text(render_rules([WATCHED])[0], encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    assert played.rules_open.any()
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


@needs_promtool
def test_prometheus_pages_for_a_composite_in_the_minutes_in_which_the_engine_does(tmp_path: pathlib.Path) -> None:
    """A busy part, and a thinner one with a gap in its traffic, hurt one after the other."""
    chance, minutes = np.random.default_rng(8), np.arange(560)
    parts = [counted(SloId("busy")), counted(SloId("thin"))]
    whole = composite(Part(SloId("busy"), 3.0), Part(SloId("thin"), 1.0))
    total = np.stack([chance.poisson(12, 560), chance.poisson(9, 560) * ((minutes < 300) | (minutes > 420))])
    harm = [(minutes > 430) & (minutes < 438), (minutes > 500) & (minutes < 530)]
    bad = chance.binomial(total, np.where(harm, 0.3, 0.0005)).astype(np.float64)
    open_ = composite_pages(parts, whole, bad, total.astype(np.float64))
    assert any(open_[431:445])
    assert not any(open_[480:500])
    assert any(open_[500:530])
    checks = [
        {
            "expr": alerts(whole),
            "eval_time": f"{minute + 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if open_[minute] else [],
        }
        for minute in (*range(428, 446), *range(498, 536))
    ]
    series = [one for at, part in enumerate(parts) for one in input_series(part, bad[at], total[at].astype(np.float64))]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    rules = yaml.safe_load(render_rules([*parts, whole])[0])
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    assert "SUCCESS" in promtool(tmp_path, "check", "rules", "rules.yaml")
    own = {"groups": [group for group in rules["groups"] if group["name"] == "slo-whole-page"]}  # it needs no other
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


def counted(name: SloId) -> Slo:
    """An SLO with counters of its own."""
    series = Series(f"{name}_total", bad=f'{name}_total{{outcome="failed"}}')
    return dataclasses.replace(WATCHED, slo_id=name, sli=dataclasses.replace(WATCHED.sli, series=series))


def composite_pages(
    parts: Sequence[Slo], whole: Slo, bad: npt.NDArray[np.float64], total: npt.NDArray[np.float64]
) -> list[bool]:
    """Return in which minutes a rule that pages is open for the composite, by our engine."""
    engine = FleetEngine(parts)
    composites, found = Composites([whole], engine), list[bool]()
    paging = {pair.name for pair in pairs_of(whole) if pair.severity is Severity.PAGE}
    for minute, counts in enumerate(np.stack([bad, total]).transpose(2, 0, 1)):
        engine.tick(Minute(minute), counts)
        composites.tick(Minute(minute), counts)
        found.append(bool(composites.opened[0].pairs & paging))
    return found


@needs_promtool
def test_the_tests_that_come_along_know_matchers_of_every_kind(tmp_path: pathlib.Path) -> None:
    """Regular expressions and negations; failures that are part of all, or counted apart."""
    selectors = (
        ('req_total{outcome!~"caller.*"}', 'req_total{outcome=~"model_.*|oom"}'),
        ('asked_total{code!="499"}', 'asked_total{code!~"[1-4]..|other"}'),
    )
    made = [
        dataclasses.replace(
            WATCHED, slo_id=SloId(f"slo-{number}"), sli=dataclasses.replace(WATCHED.sli, series=Series(total, bad=bad))
        )
        for number, (total, bad) in enumerate(selectors)
    ]
    (tmp_path / "rules.yaml").write_text(render_rules(made)[0], encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(render_tests(made, "rules.yaml"), encoding="utf-8")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


def test_each_exported_alert_has_its_runbook_with_the_place_that_it_names() -> None:
    """The page is there, and the part of it for this severity; what counts as the name of a part is GitHub's rule."""
    groups = yaml.safe_load(render_rules([WATCHED])[0])["groups"]
    named = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    assert set(named) == {"SloPage", "SloTicket"}
    for name, address in named.items():
        page, _, place = address.partition("#")
        text = (ROOT / page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        places = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert place in places
        assert f"`{name}`" in text


def test_a_rule_reads_what_another_records_what_its_user_counts_or_what_is_exported() -> None:
    """No name in an expression is of a metric that nobody makes."""
    groups = yaml.safe_load(render_rules([WATCHED])[0])["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    read = {name for rule in rules for name in re.findall(r"([a-zA-Z_:][\w:]*)(?=[{\[]| offset| <| -)", rule["expr"])}
    assert recorded <= read | {"slo:rule:open"}
    assert read <= recorded | {"req_total"} | {metric.name for metric in table()}
