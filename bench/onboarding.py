"""`onboarding`: from a fal.App file to an admitted model on a real platform, and every refusal on the way.

Three journeys (a plain app, one that takes a picture, one with weights to sign): counted are the commands that are
typed and the times that the spec is saved. Then apps and specs that are wrong in the usual ways: each must be refused
with the field and what to write instead. The wrong ones are those of the tests (tests/cli/broken_models.py).
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from safetensors.numpy import save_file
from tests.cli.broken_models import APP, APPS, SPECS, Broken
from tests.platform.platform import RunningPlatform, run_cli

from bench.table import Row

_SECONDS = 170.0
_ANSWERS = {
    "team": "paint",
    "contact": "#paint",
    "escalation": "acme on call, +49 30 000000",
    "licence": "Apache-2.0",
    "intended_use": "pictures for articles",
}
_PICTURE = '''
    @fal.endpoint("/")
    def paint(self, input: Input) -> Output:
        """Paint."""
        from PIL import Image as Pillow

        side = input.side
        drawn = Pillow.effect_noise((side, side), 40 + input.seed % 20)
        return Output(image=Image.from_pil(drawn.convert("RGB")), seed=input.seed)
'''
_HEAD = '''"""Paints."""
import fal
from fal.toolkit import Image
from pydantic import BaseModel, Field

class Input(BaseModel):
    prompt: str = Field(description="What to paint.")
    seed: int = 0
    side: int = Field(64, ge=32, le=256)
{fields}

class Output(BaseModel):
    image: Image
    seed: int

class Painter(fal.App, name="painter"):
    """Paints what looks like noise."""
{setup}{endpoint}'''
PLAIN = _HEAD.format(fields="", setup="", endpoint=_PICTURE)
EDITS = _HEAD.format(fields="    image_url: str\n", setup="", endpoint=_PICTURE)
HEAVY = _HEAD.format(
    fields="",
    setup='''
    def setup(self) -> None:
        """Load."""
        import pathlib

        self.weights = (pathlib.Path(__file__).parent / "weights" / "model.safetensors").read_bytes()
''',
    endpoint=_PICTURE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Journey:
    """How one went."""

    admitted: bool
    commands: int
    edits: int
    lines: int  # that the edit changed
    unmarked: int  # of them, not marked for a person by the template
    seconds: float
    told: str


def fill_in(text: str, answers: dict[str, str]) -> tuple[str, int, int]:
    """Answer the lines marked FILL, as a person would; returns the spec, lines changed, and those not marked."""
    lines, changed, unmarked = text.splitlines(), 0, 0
    for number, line in enumerate(lines):
        field, _, rest = line.partition(":")
        value = answers.get(field.strip())
        if value is not None and '""' in rest:
            changed, unmarked = changed + 1, unmarked + ("FILL" not in line)
            lines[number] = f"{field}: {json.dumps(value)}"
    return "\n".join(lines) + "\n", changed, unmarked


def travel(
    app: str, environment: dict[str, str], *words: str, before: Callable[[pathlib.Path], None] | None = None
) -> Journey:
    """Type one command, save the spec once when it asks for it, and see where it ends."""
    with tempfile.TemporaryDirectory(prefix="fs-onboard-") as name:
        folder = pathlib.Path(name)
        (folder / "app.py").write_text(app, encoding="utf-8")
        if before is not None:
            before(folder)
        began = time.monotonic()
        command = [sys.executable, "-P", "-m", "forestay", "model", "onboard", "app.py", "--json", *words]
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        told: list[str] = []
        asked = threading.Event()
        reading = threading.Thread(target=_read, args=(process, told, asked))
        reading.start()
        edits, lines, unmarked = 0, 0, 0
        if asked.wait(30.0) and process.poll() is None:
            spec = folder / "model.yaml"
            text, lines, unmarked = fill_in(spec.read_text(encoding="utf-8"), _ANSWERS)
            spec.write_text(text, encoding="utf-8")
            edits = 1
        try:
            status = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        reading.join()
        return Journey(status == 0, 1, edits, lines, unmarked, time.monotonic() - began, " / ".join(told[-3:]))


def _read(process: subprocess.Popen[str], told: list[str], asked: threading.Event) -> None:
    for line in process.stderr or ():
        told.append(line.strip())
        if "needs you" in line:
            asked.set()
    asked.set()


def with_weights(folder: pathlib.Path) -> None:
    """Lay small weights beside the app."""
    (folder / "weights").mkdir()
    save_file({"kernel": np.zeros((4, 4), np.float32)}, folder / "weights" / "model.safetensors")


def journeys(platform: RunningPlatform, key: pathlib.Path) -> list[tuple[str, Journey]]:
    """Go all three."""
    environment = environment_of(platform)
    return [
        ("a plain app", travel(PLAIN, environment)),
        ("an app that takes a picture", travel(EDITS, environment)),
        ("an app with weights", travel(HEAVY, environment, "--sign", str(key), before=with_weights)),
    ]


def environment_of(platform: RunningPlatform) -> dict[str, str]:
    """Return what a person's shell holds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORESTAY_")}
    return {**kept, "FORESTAY_URL": platform.url, "FORESTAY_KEY": platform.admin_key, "HOME": str(platform.folder)}


def refused(cases: Sequence[Broken], command: str, file: str) -> list[tuple[Broken, str]]:
    """Run the command on each case; returns those whose refusal lacks the field or the mend, with what was told."""
    poor: list[tuple[Broken, str]] = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="fs-onboard-") as name:
            folder = pathlib.Path(name)
            (folder / "app.py").write_text(case.app, encoding="utf-8")
            if command == "check":
                (folder / "model.yaml").write_text(case.spec, encoding="utf-8")
            ran = run_cli("model", command, str(folder / file))
        if ran.returncode != 2 or case.field not in ran.stderr or case.mend not in ran.stderr:
            poor.append((case, ran.stderr.strip()))
    return poor


LIVE = (
    Broken("a policy that nobody has", "safety.policy", "name one of", "policy: standard", "policy: strictest"),
    Broken("an app that breaks on import", "no_such_module", "mend the app", app=f"import no_such_module\n{APP}"),
    Broken(
        "an app that fails every request",
        "HTTP 500",
        "mend the app",
        app=APP.replace('return {"text": input.prompt}', "raise RuntimeError(self)"),
    ),
    Broken("a placeholder for an owner", "owner.contact", "name in the spec", '"#paint"', '"TODO"'),
)
"""What only the platform can refuse: field, mend."""


def refused_live(platform: RunningPlatform) -> list[tuple[Broken, str]]:
    """Onboard each wrong one on the platform; returns those whose refusal does not help."""
    poor: list[tuple[Broken, str]] = []
    for number, case in enumerate(LIVE):
        with tempfile.TemporaryDirectory(prefix="fs-onboard-") as name:
            folder = pathlib.Path(name)
            (folder / "app.py").write_text(case.app, encoding="utf-8")
            spec = case.spec.replace("acme/painter", f"acme/wrong-{number}")
            (folder / "model.yaml").write_text(spec, encoding="utf-8")
            words = ("model", "onboard", str(folder / "model.yaml"), "--edit-within", "0", "--requests", "20")
            ran = run_cli(*words, environment=environment_of(platform))
        told = ran.stdout + ran.stderr
        if ran.returncode == 0 or case.field not in told or case.mend not in told:
            poor.append((case, told.strip()[-600:]))
    return poor


def run(rounds: int) -> list[Row]:  # noqa: ARG001 - a person goes once
    """Go the journeys, then get everything wrong."""
    with RunningPlatform(environment={"FORESTAY_DEVICES": "3"}) as platform:
        key = platform.folder / "release.pem"
        for words in (
            ("artefact", "keygen", str(key)),
            ("artefact", "trust", "add", "release", "--key", f"{key}.pub"),
        ):
            made = run_cli(*words, environment=environment_of(platform))
            if made.returncode != 0:
                raise RuntimeError(made.stderr)
        went = journeys(platform, key)
        poor = refused_live(platform)
    poor += refused(SPECS, "check", "model.yaml") + refused(APPS, "init", "app.py")
    tried = len(LIVE) + len(SPECS) + len(APPS)
    rows = [
        Row(f"{name}: admitted", float(journey.admitted), "of 1", 1, ">=", "" if journey.admitted else journey.told)
        for name, journey in went
    ]
    lines = ", ".join(str(journey.lines) for _, journey in went)
    return [
        *rows,
        Row("commands typed", max(journey.commands for _, journey in went), "each", 1, "<="),
        Row("edits of the spec", max(journey.edits for _, journey in went), "each", 1, "<=", f"of {lines} lines"),
        Row("lines to fill in that are not marked", sum(journey.unmarked for _, journey in went), "lines", 0, "<="),
        Row("longest way", max(journey.seconds for _, journey in went), "s", note="160 requests included"),
        Row("wrong apps and specs", tried, "tried", 15),
        Row("refused with field and mend", 1 - len(poor) / tried, "share", 1, ">=", "; ".join(c.name for c, _ in poor)),
    ]
