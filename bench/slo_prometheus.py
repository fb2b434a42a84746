"""`slo_prometheus`: the exported rules, evaluated by Prometheus' own engine, against ours, minute by minute.

One month of each kind of the corpus, from seven hours before its incident to two hours after, with restarts and scrape
gaps strewn over every one. `promtool test rules` evaluates the exported file each minute, the evidence handed over as
the gauge that Forestay exports; each minute must show a page exactly where our engine has one. Where promtool is not
installed the bench says so and fails.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile

import numpy as np
import numpy.typing as npt
import yaml

from bench.slo_corpus import SEED
from bench.slo_world import KINDS, Month, month
from bench.table import Row
from forestay.slo.decide import ENOUGH
from forestay.slo.model import Measure, Series, Sli, SliKind, Slo, SloId, Subject, SubjectKind
from forestay.slo.prometheus import EVIDENCE_METRIC, render_rules
from forestay.slo.promtool_tests import alerts, play

BEFORE, AFTER = 420, 120
Floats = npt.NDArray[np.float64]
Values = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """What a scrape of the two counters shows, and what our engine is fed: the same minutes."""

    bad: Floats
    total: Floats
    bad_values: str
    total_values: str


def run(rounds: int) -> list[Row]:
    """Compare every minute of ten traces; the seed is fixed, so `rounds` changes nothing."""
    del rounds
    tool = shutil.which("promtool")
    if tool is None:
        return [Row("promtool installed", 0.0, "", 1.0, ">=", "apt-get install prometheus")]
    slos: list[Slo] = []
    series: list[Values] = []
    checks: list[Values] = []
    paging = 0
    for number, kind in enumerate(KINDS):
        slo = _slo(number)
        trace = _trace(month(kind, SEED + number), np.random.default_rng([SEED, number]))
        played = play(slo, trace.bad, trace.total)
        pages = played.rules_open | (played.evidence >= ENOUGH)
        slos.append(slo)
        series += _input(slo, trace, played.evidence)
        checks += _checks(slo, pages)
        paging += int(pages.sum())
    rules, _ = render_rules(slos)
    differing, version = _disagreements(
        tool, rules, {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    )
    return [
        Row("disagreeing minutes", differing, "", 0.0, "<=", f"of {len(checks):,} in {len(KINDS)} traces; {version}"),
        Row("minutes in which a page was open", paging, ""),
    ]


def _slo(number: int) -> Slo:
    slo_id = SloId(f"slo-{number}")
    sli = Sli(SliKind.RATIO, Measure.AVAILABILITY, series=_series(slo_id))
    return Slo(slo_id, Subject(SubjectKind.PLATFORM), 0.999, sli, "acme")


def _series(slo_id: SloId) -> Series:
    name = slo_id.replace("-", "")
    return Series(f"{name}_requests_total", bad=f'{name}_failures_total{{kind="any"}}')


def _trace(made: Month, chance: np.random.Generator) -> Trace:
    part = slice(made.first - BEFORE, made.until + AFTER)
    bad, total = made.bad[part].astype(np.float64), made.total[part].astype(np.float64)
    lost = np.zeros(len(total), dtype=np.bool_)
    for start in chance.integers(5, len(total) - 60, 3):
        end = int(start + chance.integers(2, 40))
        for counts in (bad, total):
            counts[end] += counts[start:end].sum()
            counts[start:end] = 0.0
        lost[start:end] = True
    restarts = np.zeros(len(total), dtype=np.bool_)
    restarts[chance.integers(1, len(total), 3)] = True
    restarts &= ~lost
    bad[restarts], total[restarts] = 0.0, 0.0  # counted before the restart, and never scraped
    return Trace(bad, total, _values(bad, lost, restarts), _values(total, lost, restarts))


def _values(increases: Floats, lost: npt.NDArray[np.bool_], restarts: npt.NDArray[np.bool_]) -> str:
    """Return the samples of a counter: `_` where no scrape succeeded, from 0 again after a restart."""
    value, words = 0.0, ["0"]
    for more, gone, anew in zip(increases, lost, restarts, strict=True):
        value = 0.0 if anew else value + more
        words.append("_" if gone else f"{value:.0f}")
    return " ".join(words)


def _input(slo: Slo, trace: Trace, evidence: Floats) -> list[Values]:
    series = _series(slo.slo_id)
    gauge = " ".join(["0", *(repr(1.0 if value >= ENOUGH else float(value)) for value in evidence)])
    return [
        {"series": series.total, "values": trace.total_values},
        {"series": series.bad, "values": trace.bad_values},
        {"series": f'{EVIDENCE_METRIC}{{slo="{slo.slo_id}",severity="page"}}', "values": gauge},
    ]


def _checks(slo: Slo, pages: npt.NDArray[np.bool_]) -> list[Values]:
    return [
        {
            "expr": alerts(slo),
            "eval_time": f"{minute + 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if page else [],
        }
        for minute, page in enumerate(pages.tolist())
    ]


def _disagreements(tool: str, rules: str, test: Values) -> tuple[float, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
        (folder / "tests.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        command = [tool, "test", "rules", "tests.yaml"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    words = version.splitlines()[0].split(" (")[0] if version else "promtool"
    differing = len(re.findall(r"^\s*expr: .*time: ", ran.stdout + ran.stderr, re.MULTILINE))
    if ran.returncode != 0 and differing == 0:
        return float("inf"), f"{words}: {(ran.stdout + ran.stderr)[-300:]}"
    return float(differing), words
