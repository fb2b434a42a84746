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
        self.queued = list[dict[str, Any]]()
        self.tells = True

    def get(self, path: str, query: object = None) -> object:
        """Show the model."""
        if path.startswith("/admin/requests/"):
            assert path == f"/admin/requests/{len(self.queued)}"
            work = {"peak_memory_bytes": float(2**20 * (100 + self.queued[-1].get("num_images", 1)))}
            return {"attempts": [{"work": work if self.tells else {}}]}
        assert path == "/admin/models/acme/digits"
        ready = {"state": "ready", "started_at": "2026-11-26T10:00:00+00:00", "ready_at": "2026-11-26T10:00:04+00:00"}
        return {"openapi": document(FIELDS, ["prompt"]) if query else None, "replicas": [ready]}

    def send(self, method: str, path: str, **more: Any) -> Reply:
        """Answer a call."""
        body = json.loads(more["body"])
        assert more["headers"]["x-fal-tags"] == "purpose=profile"
        if path == "/queue/acme/digits":
            self.queued.append(body)
            return Reply(200, {}, json.dumps({"request_id": str(len(self.queued))}).encode())
        assert (method, path) == ("POST", "/run/acme/digits")
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
    assert measured.requests == len(server.bodies) + len(server.queued)
    assert len(server.queued) > 3
    [images] = [item for item in measured.growth if item.field == "num_images"]
    assert images.memory_bytes == tuple(2**20 * (100 + int(value)) for value in images.values)
    model_profile.show(measured)
    told = Ran(0, capsys.readouterr().out, "").out
    assert "cold start: 4 s" in told
    assert "best" in told
    assert "memory of its replica: 10" in told


def test_a_replica_whose_processes_run_elsewhere_has_no_memory_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """One request asks; the others are spared."""
    server = Server()
    server.tells = False
    measured = run_of(server).measure("", "", 1)
    assert (measured.usual_memory_bytes, len(server.queued)) == (None, 1)
    model_profile.show(measured)
    assert "memory of its replica: unknown" in capsys.readouterr().out


def test_a_model_that_refuses_an_input_is_told_with_the_field() -> None:
    """And with what to do about it; an endpoint that is none as well."""
    with pytest.raises(TrialFailed, match=r"num_images.*--input"):
        run_of(Server("num_images")).measure("", "", 1)
    with pytest.raises(UsageError, match="--endpoint"):
        run_of(Server()).measure("/none", "", 1)
    with pytest.raises(TrialFailed, match="budget"):
        run_of(Server(), 0.0).measure("", "", 1)
