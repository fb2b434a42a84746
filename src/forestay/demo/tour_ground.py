"""What the tour is made of: its fleet, its objectives and its settings. Pure but for the copies of the examples.

It decides how the models of the tour differ from the examples (only pictures take a device, so that each worker has one
replica of them), and how many of a model's answers may be bad. Called by `tour` and `sights`.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from forestay.demo import workshop

ECHO = "forestay/echo"
OBJECTIVES: Mapping[str, float] = {
    workshop.DIGITS: 0.9,  # so that the canary of a few hundred requests may cost a dozen, and wakes nobody
    workshop.MOTION: 0.99,
    workshop.TONES: 0.99,
    ECHO: 0.99,
}
_SETTINGS: Mapping[str, str] = {
    "FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true",  # the receivers listen on loopback
    "FORESTAY_DEVICES": "1",  # a worker: one replica of the pictures each; later the control here, the candidate there
    "FORESTAY_DRILLS": "true",
    "FORESTAY_SAFETY_MARKERS": "true",  # the policy names the detector of drawn markers
    "FORESTAY_JUDGE_PATIENCE": "60",
    "FORESTAY_ALERT_BEAT": "1",
}


def build(examples: Path, folder: Path) -> Path:
    """Copy the example models, as the tour needs them; returns the fleet's file."""
    fleet = workshop.build(examples, folder)
    shutil.copytree(examples / "echo", folder / "echo", ignore=shutil.ignore_patterns("__pycache__"))
    spec = folder / "echo" / "model.yaml"
    spec.write_text(re.sub("devices: 1", "devices: 0", spec.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    with fleet.open("a", encoding="utf-8") as file:
        file.write("  - echo/model.yaml\n")
    return fleet


def settings(slos_file: Path, routes_file: Path) -> Mapping[str, str]:
    """Return the platform's settings."""
    return {
        **_SETTINGS,
        "FORESTAY_SLO_FILE": str(slos_file),
        "FORESTAY_ALERT_ROUTES": str(routes_file),
    }


def slos() -> str:
    """Return a file of SLOs, one a model."""
    return "version: 1\nslos:\n" + "".join(
        f"""  - id: {model.partition("/")[2]}-available
    description: requests that ended without a fault of ours
    subject: {{model: {model}}}
    objective: {objective * 100:g}
    sli: {{kind: ratio, measure: availability}}
    window: {{rolling: 30d}}
    owner: {{team: demo}}
"""
        for model, objective in OBJECTIVES.items()
    )
