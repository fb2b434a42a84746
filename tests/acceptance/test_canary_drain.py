"""Golden canaries on real processes: one of four replicas draws otherwise, is found, drained alone, and comes back."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import cast

import httpx
import pytest
from tests.platform.platform import RunningPlatform, run_cli

from forestay.storage.children import wait_until

pytestmark = [
    pytest.mark.slow,  # a platform of its own with two workers, and a self-test after the drain
    pytest.mark.timeout(300),
]
REPLICAS = 4  # two on each worker
APP = """
import fal
from fal.toolkit import Image
from pydantic import BaseModel


class Asked(BaseModel):
    seed: int = 0
    fall_ill: bool = False
    pause: float = 0.0


class Made(BaseModel):
    images: list[Image]


class Painter(fal.App, name="painter"):
    machine_type = "S"

    def setup(self):
        self.offset = 0

    @fal.endpoint("/")
    def draw(self, input: Asked) -> Made:
        import random
        import time

        from PIL import Image as Pillow

        self.offset = 3 if input.fall_ill else self.offset
        time.sleep(input.pause)
        chance = random.Random(input.seed)
        small = Pillow.new("RGB", (8, 8))
        small.putdata([tuple(chance.randrange(40, 200) + self.offset for _ in range(3)) for _ in range(64)])
        return Made(images=[Image.from_pil(small.resize((96, 96), Pillow.Resampling.BICUBIC), "png")])
"""
SPEC = """
version: 0
model: acme/painter
description: Paints squares.
owner: {team: t, contact: t@acme.invalid}
licence: Apache-2.0
visibility: private
host: {kind: fal_app, app: app.py::Painter}
endpoints: [{path: /}]
resources: {memory_mb: 600}
quality:
  canaries: {inputs: [{name: one, input: {seed: 1}}, {name: two, input: {seed: 2}}], reruns: 2}
"""


class Watched:
    """A platform with two workers, and its command line."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform

    def forestay(self, *arguments: str, status: int = 0) -> str:
        """Run the command line; it ends with this status."""
        environment = {"FORESTAY_URL": self.platform.url, "FORESTAY_KEY": self.platform.admin_key}
        done = run_cli(*arguments, environment=environment, timeout_seconds=120.0)
        assert done.returncode == status, done.stdout + done.stderr + self.platform.printed()
        return done.stdout

    def rows(self, *arguments: str) -> object:
        """Run a command with `--json`."""
        return json.loads(self.forestay(*arguments, "--json"))

    def rounds(self) -> Sequence[dict[str, object]]:
        """The newest rounds of the painter."""
        told = cast("dict[str, object]", self.rows("quality", "canary", "show", "acme/painter"))
        return cast("Sequence[dict[str, object]]", told["rounds"])

    def holds(self) -> Sequence[dict[str, object]]:
        """Who is held back."""
        return cast("Sequence[dict[str, object]]", cast("dict[str, object]", self.rows("quality", "status"))["holds"])

    def crowd(self) -> None:
        """Queue so much that each worker is asked for a second replica."""
        headers = {"authorization": f"Key {self.platform.api_key}"}
        with httpx.Client(base_url=self.platform.url, headers=headers, timeout=60) as client:
            for _ in range(40):
                assert client.post("/queue/acme/painter", json={"pause": 1.5}).status_code == 200

    def ready(self) -> Sequence[tuple[object, object]]:
        """The worker and the id of each replica that is ready."""
        shown = cast("dict[str, object]", self.rows("fleet", "status"))
        replicas = cast("Sequence[dict[str, object]]", shown["replicas"])
        return sorted(
            (str(item["worker_id"]), str(item["replica_id"])) for item in replicas if item["state"] == "ready"
        )


@pytest.fixture
def watched(tmp_path: pathlib.Path) -> Iterator[Watched]:
    """The painter on two workers, with a golden that both have drawn."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "model.yaml").write_text(SPEC)
    with RunningPlatform("--workers", "2", "--devices", "2") as platform:
        found = Watched(platform)
        found.forestay("deploy", str(tmp_path / "model.yaml"), "--wait")
        found.crowd()
        assert wait_until(lambda: len(found.ready()) == REPLICAS, 150.0, 0.5), platform.printed()
        assert len({worker for worker, _ in found.ready()}) == 2
        assert wait_until(lambda: len(found.rounds()) >= REPLICAS, 90.0, 0.5), platform.printed()
        yield found


def test_a_replica_that_draws_otherwise_is_found_drained_alone_tested_and_comes_back(watched: Watched) -> None:
    """Found by its canaries within one round; its sibling serves on; a passed test of a fresh one brings it back."""
    platform = watched.platform
    watched.forestay("fleet", "mode", "quality", "act")
    watched.forestay("quality", "canary", "run", "acme/painter", "--wait", "60")
    before = watched.ready()
    headers = {"authorization": f"Key {platform.api_key}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client:
        assert client.post("/run/acme/painter", json={"fall_ill": True}).status_code == 200
    told = watched.forestay("quality", "canary", "run", "acme/painter", "--wait", "60", status=1)
    assert "canaries differ from their golden" in told
    assert wait_until(lambda: len(watched.holds()) == 1, 30.0, 0.2), platform.printed()
    (hold,) = watched.holds()
    failed = next(item for item in watched.rounds() if item["ended"] == "failed")
    ill = (hold["worker_id"], hold["replica_id"])
    assert ill == (failed["worker_id"], failed["replica_id"])
    assert (hold["alone"], hold["replicas"]) == (True, 1)
    assert "row 29" in watched.forestay("quality", "explain", "acme/painter")
    assert wait_until(lambda: not watched.holds(), 120.0, 0.5), platform.printed()
    tested = next(item for item in watched.rounds() if item["cause"] == "self_test")
    assert (tested["ended"], tested["worker_id"]) == ("passed", hold["worker_id"])
    assert wait_until(lambda: len(watched.ready()) == REPLICAS, 60.0, 0.5), platform.printed()
    after = watched.ready()
    assert set(before) - set(after) == {ill}, "its sibling and the other worker's served all the while"
    assert [worker for worker, _ in after] == [worker for worker, _ in before]
