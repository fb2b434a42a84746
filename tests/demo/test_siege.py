"""The parts of the abuse scenario that need no platform: promises, the attacker's reports, what is read of answers."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import load

from forestay.demo import attacker
from forestay.demo.asking import reason_of
from forestay.demo.attacks import ATTACKS
from forestay.demo.bait import WEIGHTS, bundle_of, flip_last_weight, inner_urls, png, safetensors, spec_of
from forestay.demo.promises import ABUSE, QUALITY, ROLLOUT, SAFETY, SCENARIOS, SLO, SPINE, TOUR, Kept
from forestay.demo.scene import read_counter
from forestay.demo.siege import wait_of
from forestay.fleet import spec_file
from forestay.media.targets import check_target


class Door(http.server.BaseHTTPRequestHandler):
    """Lets the first three calls of a key in, and refuses the others with a reason."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]  # source address, Authorization

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.client_address[0], self.headers.get("Authorization", "")))
        status = 200 if len(self.seen) <= 3 else 429
        body = json.dumps({"detail": "slow down"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def a_door() -> Iterator[tuple[dict[str, Any], list[tuple[str, str]]]]:
    """Serve one; gives the address for a plan and what was seen."""
    Door.seen = seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield {"host": "127.0.0.1", "port": server.server_address[1]}, seen
        server.shutdown()
        thread.join()


REQUEST: dict[str, Any] = {"path": "/", "key": "id:secret", "body": {}}


def test_every_attack_is_a_promise() -> None:
    """No attack lacks its line in the table, and what is in the table beside them is the course's own."""
    names = [name for name, _ in ATTACKS]
    assert len(names) == len(set(names))
    assert set(ABUSE) - set(names) == {"start", "solo", "neighbour", "audit", "stop"}
    assert set(names) <= set(ABUSE)


def test_a_promise_of_two_scenarios_has_one_text() -> None:
    """A promise is looked up by its name alone."""
    assert SCENARIOS == {
        "tour": TOUR,
        "spine": SPINE,
        "abuse": ABUSE,
        "safety": SAFETY,
        "slo": SLO,
        "quality": QUALITY,
        "rollout": ROLLOUT,
    }
    for promises in SCENARIOS.values():
        assert all(Kept(name).text == text for name, text in promises.items())


def test_the_attacker_stops_knocking_when_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It says once that it is in, then reports how often and what refused it."""
    with a_door() as (address, seen):
        report = attacker.knock({**address, "request": REQUEST, "seconds": 10.0, "pause": 0.0})
    assert report["through"] == 3
    assert report["answer"] == {"status": 429, "body": '{"detail": "slow down"}', "headers": {"retry-after": "7"}}
    assert capsys.readouterr().out.splitlines() == ['{"event": "in"}']
    assert seen[0][1] == "Key id:secret"


def test_a_flood_reports_every_call_by_status() -> None:
    """Nothing is dropped from the count, and one answer of each kind is kept."""
    with a_door() as (address, seen):
        report = attacker.flood({**address, "request": REQUEST, "rate": 1000.0, "count": 40, "connections": 3})
    assert sum(report["statuses"].values()) == len(seen) == 40
    assert report["statuses"]["200"] == 3
    assert report["samples"]["429"]["headers"] == {"retry-after": "7"}


def test_guessed_secrets_differ_and_never_reach_the_report() -> None:
    """Each guess is another secret of the one key."""
    with a_door() as (address, seen):
        report = attacker.guess({**address, "source": "127.0.0.1", "request": REQUEST, "key_id": "k", "count": 5})
    credentials = {credential for _, credential in seen}
    assert len(credentials) == 5
    assert all(credential.startswith("Key k:") for credential in credentials)
    assert not any(credential.removeprefix("Key ") in json.dumps(report) for credential in credentials)


def test_a_platform_that_does_not_answer_is_reported_as_such() -> None:
    """Status 0 and why, not a traceback."""
    with a_door() as (address, _):
        pass
    (answer,) = attacker.calls({**address, "requests": [REQUEST]})["answers"]
    assert answer["status"] == 0
    assert "refused" in answer["body"]


def test_the_reason_is_found_in_either_shape_of_an_error() -> None:
    """In fal's shape `detail` is a text, or a list of fields; anything else is shown as it is."""
    assert reason_of('{"detail": "not from here"}') == "not from here"
    assert reason_of('{"detail": [{"loc": ["body", "image_url"], "msg": "no public address"}]}') == "no public address"
    assert reason_of("gone") == "gone"


def test_every_inner_url_is_one_that_the_guard_refuses_before_any_call() -> None:
    """The list holds no address that would pass, so that none is refused by accident alone."""
    assert [url for url in inner_urls(8080) if check_target(url, allow_private=False) is None] == []


def test_a_changed_weight_changes_the_bundle_and_nothing_else(tmp_path: Path) -> None:
    """One bit of the last file; the archive itself stays readable."""
    bundle = bundle_of({"app.py": b"VALUE = 1\n", WEIGHTS: safetensors(1024)})
    stored = tmp_path / "bundle.tar"
    stored.write_bytes(bundle)
    flip_last_weight(stored)
    assert hashlib.sha256(stored.read_bytes()).digest() != hashlib.sha256(bundle).digest()
    with tarfile.open(fileobj=io.BytesIO(stored.read_bytes())) as tar:
        weights, app = tar.extractfile(WEIGHTS), tar.extractfile("app.py")
        assert weights is not None
        assert app is not None
        found = weights.read()
        assert sum(one != other for one, other in zip(found, safetensors(1024), strict=True)) == 1
        assert len(load(safetensors(1024))["w"]) == 1024
        assert app.read() == b"VALUE = 1\n"


def test_the_bad_models_have_valid_specs() -> None:
    """They are refused for their bytes, not for their specs."""
    assert spec_file.from_values(spec_of("demo/altered"), "spec").model_id == "demo/altered"


def test_the_picture_of_the_bomb_is_what_its_header_says() -> None:
    """An ordinary one opens; the bomb claims its size in a hundred bytes."""
    with Image.open(io.BytesIO(png(32, 32, (b"\0" + bytes(96)) * 32))) as picture:
        picture.load()
        assert picture.size == (32, 32)
    assert len(png(60_000, 60_000, b"")) < 100


def test_a_counter_is_read_by_its_label() -> None:
    """As Prometheus writes it; 0 before the first."""
    text = '# TYPE a counter\nrefused_total{cause="scope"} 3.0\nrefused_total{cause="wrong_secret"} 60.0\n'
    assert read_counter(text, "refused_total", "wrong_secret") == 60
    assert read_counter(text, "refused_total", "network") == 0


def test_a_request_that_never_started_waited_until_its_end() -> None:
    """It does not count as one that waited for nothing."""
    fact = {"submitted_at": "2030-01-01T00:00:10+00:00", "started_at": None, "finished_at": "2030-01-01T00:00:13+00:00"}
    first = 1893456000.0
    assert wait_of(fact, first).wait_seconds == 3.0
    assert wait_of({**fact, "started_at": "2030-01-01T00:00:10.250000+00:00"}, first).wait_seconds == 0.25
    assert wait_of(fact, first).at_seconds == 10.0
