"""What a command does when a model fails, or when its budget is spent."""

import json
import threading

import pytest
from tests.cli.broken_models import SPEC

from forestay.cli.client import PlatformClient, Profile, Reply
from forestay.cli.model_onboard import Onboarding, Way
from forestay.cli.trial import Ask, Sender, TrialFailed, checked
from forestay.clock import SystemClock
from forestay.fleet import spec_file
from forestay.ids import ModelId


class Server(PlatformClient):
    """Answers without a network; notes paths and how many ran at once."""

    def __init__(self, status: int) -> None:
        super().__init__(Profile("http://127.0.0.1:9", "key"))
        self.status, self.paths = status, list[str]()
        self.now, self.most, self._lock = 0, 0, threading.Lock()

    def send(self, method: str, path: str, **_: object) -> Reply:  # noqa: ARG002 - as its parent's
        """Note and answer."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.paths.append(path)
        with self._lock:
            self.now -= 1
        return Reply(self.status, {}, b'{"detail": "no such colour"}')


def sender(server: Server) -> Sender:
    """A sender to it."""
    return Sender(server, ModelId("acme/painter"), SystemClock())


def test_all_are_sent_never_more_at_once_than_asked() -> None:
    """Each to its endpoint."""
    server = Server(200)
    trial = sender(server).many([Ask("/", {}), Ask("/edit", {})] * 20, 3, 60.0)
    assert (len(trial.answers), trial.failures, trial.stopped) == (40, {}, "")
    assert set(server.paths) == {"/run/acme/painter", "/run/acme/painter/edit"}
    assert server.most <= 3
    assert checked(trial) is trial


def test_a_model_that_fails_again_and_again_is_left_alone_and_says_why() -> None:
    """Not all of a thousand requests are spent on finding out; what it said is told, with the mend."""
    server = Server(422)
    trial = sender(server).many([Ask("/", {})] * 1000, 2, 60.0)
    assert len(server.paths) < 20
    with pytest.raises(TrialFailed, match=r"HTTP 422.*no such colour.*--input"):
        checked(trial)


def test_a_spent_budget_ends_it() -> None:
    """What was measured until then counts."""
    trial = sender(Server(200)).many([Ask("/", {})] * 10, 1, 0.0)
    assert trial.answers == ()
    assert "budget" in trial.stopped


class Failing(Server):
    """A platform whose model raises; it keeps what the model wrote of queued requests."""

    def __init__(self, *written: str) -> None:
        super().__init__(200)
        self.logs = [{"at": "", "level": "STDOUT", "message": line} for line in written]

    def send(self, method: str, path: str, **_: object) -> Reply:
        """Answer as the queue and the admin API do."""
        self.paths.append(f"{method} {path}")
        shown = {"request_id": "r1", "attempts": [{"outcome": "model_error"}], "logs": self.logs}
        return Reply(200, {}, json.dumps(shown).encode())


def test_what_a_failing_model_wrote_is_fetched_through_the_queue() -> None:
    """The error and where it was raised, which the SDK writes as one line of JSON, in lines that a person can read."""
    trace = "KeyError: 'weights'\n" + "  File x\n" * 40
    server = Failing(*["step"] * 50, "{not json", json.dumps({"traceback": trace}))
    words = sender(server).words(Ask("/edit", {}), 30.0)
    assert words[:6] == ["step", "step", "step", "{not json", "KeyError: 'weights'", "  File x"]
    assert len(words) == 16
    assert server.paths[0] == "POST /queue/acme/painter/edit"


class Dead(Server):
    """A platform whose model does not start: its request waits for ever."""

    def send(self, method: str, path: str, **_: object) -> Reply:  # noqa: ARG002 - as its parent's
        """Answer for the model's replica alone."""
        if method == "POST":
            threading.Event().wait()
        replica = {"state": "backoff", "detail": "OSError: no weights"}
        return Reply(200, {}, json.dumps({"replicas": [replica]}).encode())


def test_onboarding_does_not_wait_for_a_model_that_does_not_start() -> None:
    """Its own words are told at once, and not after the whole budget."""
    server = Dead(200)
    way = Onboarding(Way(budget_seconds=600.0, body="{}"), server, SystemClock(), lambda _: None)
    with pytest.raises(TrialFailed, match=r"acme/painter does not start: OSError: no weights"):
        way.tried(spec_file.parse(SPEC, "model.yaml"))
