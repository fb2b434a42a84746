"""What a command does when a model fails, or when its budget is spent."""

import threading

import pytest

from forestay.cli.client import PlatformClient, Profile, Reply
from forestay.cli.trial import Ask, Sender, TrialFailed, checked
from forestay.clock import SystemClock
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
