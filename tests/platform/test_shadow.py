"""The shadow of a rollout on real processes: copies are sent, judged, compared, and nobody else notices.

The model draws a picture from a seed without any weights, so it starts at once; its bad revision differs in one number.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import cast

import httpx
import pytest
from tests.platform.platform import RunningPlatform, run_cli

from forestay.storage.children import wait_until

pytestmark = [pytest.mark.slow]  # a platform of its own, and some forty requests
MOST_PICTURES = 200
APP = """
import fal
from fal.toolkit import Image
from pydantic import BaseModel


class Asked(BaseModel):
    seed: int | None = None


class Made(BaseModel):
    images: list[Image]
    seed: int


class Painter(fal.App, name="painter"):
    machine_type = "S"

    @fal.endpoint("/")
    def draw(self, input: Asked) -> Made:
        import random

        from PIL import Image as Pillow

        seed = random.randrange(10**6) if input.seed is None else input.seed
        chance = random.Random(seed)
        small = Pillow.new("RGB", (8, 8))
        small.putdata([tuple(chance.randrange(40, 200) + OFFSET for _ in range(3)) for _ in range(64)])
        return Made(images=[Image.from_pil(small.resize((96, 96), Pillow.Resampling.BICUBIC), "png")], seed=seed)
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
"""


def revision(folder: pathlib.Path, name: str, offset: int, note: str = "") -> str:
    """Write a revision whose levels are this much higher."""
    model = folder / name
    model.mkdir()
    (model / "app.py").write_text(f"# {note}\nOFFSET = {offset}\n{APP}")
    (model / "model.yaml").write_text(SPEC)
    return str(model / "model.yaml")


class Shipping:
    """A platform, its callers, and the command line."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform

    def forestay(self, *arguments: str) -> str:
        """Run the command line; it succeeds."""
        environment = {"FORESTAY_URL": self.platform.url, "FORESTAY_KEY": self.platform.admin_key}
        done = run_cli(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr + self.platform.printed()
        return done.stdout

    def status(self) -> dict[str, object]:
        """The newest rollout as it is."""
        return json.loads(self.forestay("rollout", "status", "acme/painter", "--json"))

    def paint(self) -> None:
        """Ask for a picture by the queue and wait for it; it succeeds."""
        headers = {"authorization": f"Key {self.platform.api_key}"}
        with httpx.Client(base_url=self.platform.url, headers=headers, timeout=60) as client:
            job = client.post("/queue/acme/painter", json={}).json()
            path = f"/queue/acme/painter/requests/{job['request_id']}"
            done = wait_until(lambda: client.get(f"{path}/status").json()["status"] == "COMPLETED", 120.0, 0.05)
            assert done, self.platform.printed()
            answer = client.get(path)
        assert answer.status_code == 200, answer.text

    def until_over(self) -> dict[str, object]:
        """Paint one picture after another until the rollout has left its shadow."""
        for _ in range(MOST_PICTURES):
            self.paint()
            found = self.status()
            if found["stage"] not in {"gates", "shadow"}:
                return found
        raise AssertionError(f"no end: {self.status()}\n{self.platform.printed()}")


@pytest.fixture(scope="module")
def shipping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipping]:
    """A platform with the model's first revision."""
    with RunningPlatform("--workers", "1") as platform:
        found = Shipping(platform)
        found.forestay("deploy", revision(tmp_path_factory.mktemp("first"), "model", 0))
        found.paint()
        yield found


@pytest.mark.timeout(300)
def test_a_revision_that_differs_in_one_number_is_stopped_in_shadow_and_one_that_does_not_goes_on(
    shipping: Shipping, tmp_path: pathlib.Path
) -> None:
    """No caller's request fails, or is answered by the bad one."""
    options = ("--shadow-requests", "12", "--step-seconds", "0")
    shipping.forestay("rollout", "start", revision(tmp_path, "bad", 6), *options)
    ended = shipping.until_over()
    assert ended["stage"] == "rolled_back", ended["reason"]
    assert "stopped in shadow" in str(ended["reason"])
    assert "level" in str(ended["reason"]) or "colour" in str(ended["reason"])
    assert cast("dict[str, int]", ended["requests"])["candidate"] == 0
    shipping.forestay("rollout", "start", revision(tmp_path, "good", 0, "only a comment"), *options)
    passed = shipping.until_over()
    assert passed["stage"] == "canary", passed["reason"]
    shipping.forestay("rollout", "abort", "acme/painter", "--reason", "enough seen")
