"""A profile run against a platform that answers at once, and what a person is told."""

import json
from typing import Any

import pytest
from tests.capacity.test_profile import FIELDS
from tests.capacity.test_sample_inputs import document
from tests.cli.conftest import Ran
from tests.conformance.fleet_values import revision_of

from forestay.cli import model_profile
from forestay.cli.client import PlatformClient, Profile, Reply
from forestay.cli.trial import TrialFailed
from forestay.clock import SystemClock
from forestay.errors import UsageError


class Server(PlatformClient):
    """A model whose interface is known, and that fails where `refuses` is in the input."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__(Profile("http://127.0.0.1:9", "key"))
        self.refuses = refuses
        self.bodies = list[dict[str, Any]]()

    def get(self, path: str, query: object = None) -> object:
        """Show the model."""
        assert path == "/admin/models/acme/digits"
        ready = {"state": "ready", "started_at": "2026-11-26T10:00:00+00:00", "ready_at": "2026-11-26T10:00:04+00:00"}
        return {"openapi": document(FIELDS, ["prompt"]) if query else None, "replicas": [ready]}

    def send(self, method: str, path: str, **more: Any) -> Reply:
        """Answer a call."""
        assert (method, path) == ("POST", "/run/acme/digits")
        body = json.loads(more["body"])
        self.bodies.append(body)
        return Reply(422 if self.refuses in body and self.refuses else 200, {}, b"{}")


def run_of(server: Server, seconds: float = 60.0) -> model_profile.ProfileRun:
    """A run against it."""
    return model_profile.ProfileRun(server, revision_of("digits-1").spec, SystemClock(), seconds)


def test_a_run_measures_features_levels_and_the_cold_start(capsys: pytest.CaptureFixture[str]) -> None:
    """Each field that means work in its own row, the best level marked."""
    server = Server()
    measured = run_of(server).measure("", "", 2)
    assert {item.field for item in measured.growth} == {"num_inference_steps", "image_size", "num_images"}
    assert measured.cold_start_seconds == 4.0
    assert measured.levels[0].at_once == 1
    assert measured.requests == len(server.bodies)
    model_profile.show(measured)
    told = Ran(0, capsys.readouterr().out, "").out
    assert "cold start: 4 s" in told
    assert "best" in told


def test_a_model_that_refuses_an_input_is_told_with_the_field() -> None:
    """And with what to do about it; an endpoint that is none as well."""
    with pytest.raises(TrialFailed, match=r"num_images.*--input"):
        run_of(Server("num_images")).measure("", "", 1)
    with pytest.raises(UsageError, match="--endpoint"):
        run_of(Server()).measure("/none", "", 1)
    with pytest.raises(TrialFailed, match="budget"):
        run_of(Server(), 0.0).measure("", "", 1)
