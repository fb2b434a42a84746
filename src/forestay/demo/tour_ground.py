"""What the tour is made of: its fleet, its objectives and its settings. Pure but for the copies of the examples.

It decides how the models of the tour differ from the examples, and how many of a model's answers may be bad. There are
four devices, so that nothing is loaded twice but the pictures: theirs are on both workers, film and sound on one each.
Called by `tour` and `sights`.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from forestay.demo import workshop
from forestay.demo.revisions import without_canaries

ECHO, _ECHO_FOLDER = "forestay/echo", "echo"
OBJECTIVES: Mapping[str, float] = {
    workshop.DIGITS: 0.9,  # so that the canary of a few hundred requests may cost a dozen, and wakes nobody
    workshop.MOTION: 0.99,
    workshop.TONES: 0.99,
    ECHO: 0.99,
}
_SETTINGS: Mapping[str, str] = {
    "FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true",  # the receivers listen on loopback
    "FORESTAY_DEVICES": "2",  # a worker: pictures have one, film or sound the other; a candidate takes what was drained
    "FORESTAY_DRILLS": "true",
    "FORESTAY_SAFETY_MARKERS": "true",  # the policy names the detector of drawn markers
    "FORESTAY_JUDGE_PATIENCE": "60",
    "FORESTAY_ALERT_BEAT": "1",
}


def build(examples: Path, folder: Path) -> Path:
    """Copy the example models, as the tour needs them; returns the fleet's file."""
    for name in (*workshop.FOLDERS.values(), _ECHO_FOLDER):
        shutil.copytree(examples / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        spec = folder / name / "model.yaml"
        spec.write_text(spec_text(spec.read_text(encoding="utf-8"), name), encoding="utf-8")
    fleet = folder / "fleet.yaml"
    names = [item.name for item in sorted(folder.iterdir()) if item.is_dir()]
    fleet.write_text("models:\n" + "".join(f"  - {name}/model.yaml\n" for name in names), encoding="utf-8")
    return fleet


def spec_text(text: str, name: str) -> str:
    """Return an example's spec: what makes media has a contract that is enforced, the echo takes no device.

    Golden canaries are left out, as in the revisions that are shipped: their gate would stop one before its shadow.
    """
    if name == _ECHO_FOLDER:
        return re.sub("devices: 1", "devices: 0", text, count=1)
    bare = without_canaries(text)
    return workshop.spec_text(bare, workshop.DIGITS)  # each as the game day has its pictures: with a device of its own


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
