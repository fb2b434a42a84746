"""A subtly bad revision of the example model is stopped in its shadow, on real processes.

One line of its scheduler's configuration differs. Every request succeeds, every picture is a digit; no caller ever sees
one of them.
"""

import json
import pathlib
import shutil

import httpx
import pytest
from tests.platform.platform import RunningPlatform, run_cli

from forestay.demo.revisions import without_canaries
from forestay.storage.children import wait_until

pytestmark = [pytest.mark.slow]  # two pipelines and some forty pictures on one core
DIGITS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits"
MOST_PICTURES = 150
DIGIT_NAMES = ("one", "two", "three", "four", "five", "six", "seven")


def revision(folder: pathlib.Path, name: str, **scheduler: object) -> pathlib.Path:
    """Copy the example, with changes of its scheduler's configuration."""
    copy = folder / name
    shutil.copytree(DIGITS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    config = copy / "weights" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **scheduler}))
    (copy / "README.md").write_text(name)
    spec = copy / "model.yaml"
    # Without its canaries: their gate would stop the bad one before its shadow.
    spec.write_text(
        without_canaries(spec.read_text()).replace("startup_timeout_seconds: 120", "startup_timeout_seconds: 300")
    )
    return spec


class Shipping:
    """A platform, its callers, and the command line."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform
        self.environment = {"FORESTAY_URL": platform.url, "FORESTAY_KEY": platform.admin_key}
        self.made: list[dict[str, object]] = []

    def forestay(self, *arguments: str) -> str:
        """Run the command line; it succeeds."""
        done = run_cli(*arguments, environment=self.environment)
        assert done.returncode == 0, done.stderr + self.platform.printed()
        return done.stdout

    def status(self) -> dict[str, object]:
        """The rollout as it is."""
        return json.loads(self.forestay("rollout", "status", "forestay/digits", "--json"))

    def draw(self, number: int) -> int:
        """Ask for a picture by the queue and wait for it; returns the status of the result."""
        headers = {"authorization": f"Key {self.platform.api_key}"}
        asked = {"prompt": f"a red {DIGIT_NAMES[number % 7]}", "num_inference_steps": 6, "image_size": {"width": 64}}
        with httpx.Client(base_url=self.platform.url, headers=headers, timeout=60) as client:
            job = client.post("/queue/forestay/digits", json=asked).json()
            path = f"/queue/forestay/digits/requests/{job['request_id']}"
            done = wait_until(lambda: client.get(f"{path}/status").json()["status"] == "COMPLETED", 150.0, 0.05)
            assert done, self.platform.printed()
            answer = client.get(path)
        self.made.append(answer.json())
        return answer.status_code

    def until_over(self) -> dict[str, object]:
        """Draw one picture after another until the rollout has left its shadow."""
        for number in range(MOST_PICTURES):
            assert self.draw(number) == 200
            found = self.status()
            if found["stage"] not in {"gates", "shadow"}:
                return found
        raise AssertionError(f"no end: {self.status()}\n{self.platform.printed()}")


@pytest.mark.timeout(420)
def test_one_wrong_setting_of_a_scheduler_is_stopped_in_shadow_and_a_good_revision_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    """The reason names what differs; no caller's request fails or is answered by it; nobody pays for the copies."""
    options = ("--shadow-requests", "12", "--step-seconds", "0")
    with RunningPlatform("--workers", "1") as platform:
        shipping = Shipping(platform)
        shipping.forestay("deploy", str(revision(tmp_path, "good")))
        assert shipping.draw(0) == 200
        shipping.forestay("rollout", "start", str(revision(tmp_path, "bad", prediction_type="v_prediction")), *options)
        ended = shipping.until_over()
        assert ended["stage"] == "rolled_back", ended["reason"]
        assert "stopped in shadow" in str(ended["reason"])
        assert ended["weight"] == 0
        shipping.forestay("rollout", "start", str(revision(tmp_path, "better", steps_offset=1, _note="same")), *options)
        passed = shipping.until_over()
        assert passed["stage"] == "canary", passed["reason"]
        shipping.forestay("rollout", "abort", "forestay/digits", "--reason", "enough seen")
