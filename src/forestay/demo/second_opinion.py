"""What Prometheus' own engine says of the minutes of the demonstration, by the exported rules, where it is installed.

It decides whether the three agree: the platform's standings, the engine's replay of the minutes, and `promtool`. The
rules and the test stay in the output folder, to be run again. Called by `burning`.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import yaml

from forestay.demo import studio
from forestay.demo.stage import Broken
from forestay.slo.decide import ENOUGH
from forestay.slo.model import Counts, Minute, Slo
from forestay.slo.prometheus import render_rules
from forestay.slo.promtool_tests import alerts, input_series, play
from forestay.slo.slo_file import read_slos

_SECONDS = 60.0
_COUNT = studio.HOURS * 60
_CHECKED = 120  # the last of them are compared
Values = dict[str, object]


def second_opinion(
    minutes: Mapping[str, Mapping[Minute, Counts]], last: Minute, standing: Mapping[str, str], folder: Path
) -> str:
    """Return what was compared; Broken where somebody says something else."""
    first = Minute(last - _COUNT + 1)
    slos, series, checks, paging = list[Slo](), list[Values](), list[Values](), 0
    for slo in (one for one in read_slos(studio.slos(), "demo.yaml") if one.subject.name in minutes):
        model = slo.subject.name
        counts = minutes[model]
        kept = [counts.get(Minute(minute), Counts()) for minute in range(first, last + 1)]
        bad, total = (np.asarray([getattr(one, name) for one in kept], dtype=np.float64) for name in ("bad", "total"))
        played = play(slo, bad, total, first)
        pages = played.rules_open | (played.evidence >= ENOUGH)
        if bool(pages[-1]) != (standing[model] == "page"):
            raise Broken(f"{model} stands at {standing[model]}, and a replay of its minutes says otherwise")
        slos.append(slo)
        series += input_series(slo, bad, total, played.evidence)
        paging += int(pages[-_CHECKED:].sum())
        checks += [
            {
                "expr": alerts(slo),
                "eval_time": f"{at + 1}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if page else [],
            }
            for at, page in list(enumerate(cast("list[bool]", pages.tolist())))[-_CHECKED:]
        ]
    (folder / "rules.yaml").write_text(render_rules(slos)[0], encoding="utf-8")
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "rules.test.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    return _judged(folder, len(checks), paging)


def _judged(folder: Path, checked: int, paging: int) -> str:
    tool = shutil.which("promtool")
    if tool is None:
        return "promtool is not installed (apt-get install prometheus): a replay agrees; rules.test.yaml waits for it"
    command = [tool, "test", "rules", "rules.test.yaml"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS)
    said = ran.stdout + ran.stderr
    if ran.returncode != 0:
        differing = len(re.findall(r"^\s*expr: .*time: ", said, re.MULTILINE))
        raise Broken(f"{differing} of {checked} minutes differ: {said[-200:]}")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False, timeout=_SECONDS).stdout
    return f"{version.split(' (')[0]}: {checked:,} minutes, {paging} of them with a page, and not one differs"
