"""A model that has to be let in, on real processes: in review, measured by a profile run, admitted, shipped on.

The second revision is shadowed by synchronous calls alone: nobody uses the queue.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import cast

import httpx
import pytest
from tests.platform.platform import RunningPlatform, run_cli
from tests.platform.test_shadow import APP, SPEC

from forestay.clock import SystemClock
from forestay.storage.children import wait_until

pytestmark = [pytest.mark.slow]  # a platform of its own, and some fifty requests
MODEL = "acme/painter"
ASKED = "class Asked(BaseModel):\n    seed: int | None = None\n"
SIDED = "class Asked(BaseModel):\n    seed: int | None = None\n    steps: int = Field(4, ge=1, le=16)\n"
WORK = "        import random\n"
TAKES = """        import random
        import time

        held = b"x" * (4_000_000 * input.steps)
        time.sleep(0.05 * input.steps)
"""


class Shop:
    """A platform, its owner, and one of its callers."""

    def __init__(self, platform: RunningPlatform, folder: pathlib.Path) -> None:
        self.platform = platform
        self.folder = folder

    def forestay(self, *words: str) -> tuple[int, str]:
        """Run the command line; returns its exit code and what it said."""
        environment = {"FORESTAY_URL": self.platform.url, "FORESTAY_KEY": self.platform.admin_key}
        done = run_cli(*words, environment=environment)
        return done.returncode, done.stdout + done.stderr

    def told(self, *words: str) -> dict[str, object]:
        """Run a command that succeeds; returns what it said in JSON."""
        status, said = self.forestay(*words, "--json")
        assert status == 0, said + self.platform.printed()
        return cast("dict[str, object]", json.loads(said[said.index("{") :]))

    def spec(self, name: str, offset: int) -> str:
        """Write a revision that has to be let in, whose levels are this much higher."""
        model = self.folder / name
        model.mkdir()
        app = APP.replace(ASKED, SIDED).replace("import BaseModel", "import BaseModel, Field").replace(WORK, TAKES)
        (model / "app.py").write_text(f"OFFSET = {offset}\n{app}")
        (model / "model.yaml").write_text(f"{SPEC}admission: required\n")
        return str(model / "model.yaml")

    def paint(self) -> int:
        """Ask for a picture by a synchronous call, as a caller; returns the status."""
        headers = {"authorization": f"Key {self.platform.api_key}"}
        with httpx.Client(base_url=self.platform.url, headers=headers, timeout=60) as client:
            return client.post(f"/run/{MODEL}", json={"steps": 1}).status_code

    def waive(self, items: Sequence[dict[str, object]]) -> None:
        """Accept for today whatever keeps the model out."""
        until = SystemClock().now().date().isoformat()
        for item in items:
            if item["holds_up"]:
                words = ("--owner", "ada", "--reason", "a test", "--until", until)
                assert self.forestay("model", "waive", MODEL, str(item["item"]), *words)[0] == 0


@pytest.mark.timeout(240)
def test_a_model_is_measured_let_in_and_shipped_on_by_synchronous_calls_alone(tmp_path: pathlib.Path) -> None:
    """Closed to callers until it is admitted; a bad revision is then stopped by copies of what they asked for."""
    with RunningPlatform("--workers", "1") as platform:
        shop = Shop(platform, tmp_path)
        assert shop.forestay("deploy", shop.spec("first", 0))[0] == 0
        assert shop.paint() == 403

        measured = shop.told("model", "profile", MODEL, "--budget-seconds", "60", "--repeats", "2")
        growth = cast("list[dict[str, object]]", measured["growth"])
        [steps] = [item for item in growth if item["field"] == "steps"]
        seconds, memory = cast("list[float]", steps["seconds"]), cast("list[int]", steps["memory_bytes"])
        assert seconds[-1] > seconds[0]
        assert memory[-1] - memory[0] > 20_000_000

        status, said = shop.forestay("model", "admit", MODEL)
        assert (status, "safety.policy" in said) == (1, True), said
        shop.waive(
            cast(
                "list[dict[str, object]]", json.loads(shop.forestay("model", "readiness", MODEL, "--json")[1])["items"]
            )
        )
        assert shop.forestay("model", "admit", MODEL, "--reason", "seen")[0] == 0
        assert wait_until(lambda: shop.paint() == 200, 30.0, 0.2), platform.printed()

        options = ("--shadow-requests", "12", "--step-seconds", "0")
        assert shop.forestay("rollout", "start", shop.spec("bad", 6), *options)[0] == 0
        found: dict[str, object] = {}
        for _ in range(150):
            assert shop.paint() == 200
            found = shop.told("rollout", "status", MODEL)
            if found["stage"] not in {"gates", "shadow"}:
                break
        assert found["stage"] == "rolled_back", f"{found}\n{platform.printed()}"
        assert "stopped in shadow" in str(found["reason"])
