"""A standing on real gateways: how soon each of them feels it, and that it ends as it was said."""

import base64
import contextlib
import dataclasses
import datetime as dt
import json
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.acceptance.conftest import Acceptance
from tests.acceptance.programs import clean_environment
from tests.platform.platform import wait_for

from forestay.abuse.minilm_child import missing

ECHO = "/run/forestay/echo"
FELT_SECONDS = 1.0
ROUNDS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Gateways:
    """The platform's own gateway, which hears wake-ups, and one more, which has no Valkey and must look for itself."""

    platform: Acceptance
    urls: tuple[str, str]

    def admin(self, method: str, path: str, body: dict[str, object]) -> Any:
        """Ask the admin API at the first gateway."""
        with self.platform.http(self.platform.admin_key) as client:
            return client.request(method, f"/admin{path}", json=body).raise_for_status().json()

    def felt_after(self, key: str, status_code: int, since: float) -> list[float]:
        """Return for each gateway how many seconds after `since` it first answered with this status."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(lambda url: first_answer(url, key, status_code) - since, self.urls))


def first_answer(url: str, key: str, status_code: int) -> float:
    """Call without a pause until a gateway answers with the status; returns when the call began. At most 10 s."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Key {key}"}, timeout=10.0, trust_env=False) as client:
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            began = time.monotonic()
            if client.post(ECHO, json={}).status_code == status_code:
                return began
    raise AssertionError(f"{url} never answered {status_code}")


@pytest.fixture(scope="module")
def gateways(acceptance: Acceptance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """A second gateway process beside the platform's, on the same stores but Valkey."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = json.loads((acceptance.data_dir / "addresses.json").read_text(encoding="utf-8"))
    secrets = acceptance.data_dir / "secrets"
    environment = {
        **clean_environment(),
        "FORESTAY_DATABASE_URL": known["database_url"],
        "FORESTAY_FACTS_URL": known["facts_url"],
        "FORESTAY_OBJECT_STORE": known["object_store"],
        "FORESTAY_DATABASE_POOL_SIZE": "4",
        "FORESTAY_INTERNAL_KEY": (secrets / "internal-key").read_text().strip(),
        "FORESTAY_TOKEN_KEY": (secrets / "token-key").read_text().strip(),
        "FORESTAY_KEY_PEPPER": (secrets / "key-pepper").read_text().strip(),
        "FORESTAY_SIGNING_KEY_FILE": str(secrets / "webhook-signing-key.pem"),
        "FORESTAY_PORT": str(port),
        "FORESTAY_TLS_PORT": "-1",
        "FORESTAY_CONNECT_PORT": "-1",
        "FORESTAY_MEANINGS_PER_SECOND": "" if missing() else "20",
    }
    command = [sys.executable, "-P", "-m", "forestay", "gateway"]
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("gateway") / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        assert wait_for(lambda: process.poll() is not None or answers(url), 30.0)
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        yield Gateways(acceptance, (acceptance.url, url))
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(url: str) -> bool:
    """Tell whether a gateway is ready."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    return False


@pytest.mark.threat("API6:2023", "AML.T0040")
def test_every_gateway_feels_a_standing_and_its_end_within_a_second(gateways: Gateways) -> None:
    """Set and lifted again and again: the gateway that hears, and the one that is deaf."""
    key = gateways.platform.new_key("felt-soon")
    subject = f"key:{key.partition(':')[0]}"
    waits: list[float] = []
    gateways.felt_after(key, 200, time.monotonic())
    for _ in range(ROUNDS):
        since = time.monotonic()
        asked = {"subject": subject, "kind": "suspend", "reason": "a test", "for_seconds": 60.0}
        gateways.admin("POST", "/abuse/standings", asked)
        waits += gateways.felt_after(key, 403, since)
        since = time.monotonic()
        gateways.admin("POST", "/abuse/lift", {"subject": subject, "reason": "a test", "pardon_seconds": 0})
        waits += gateways.felt_after(key, 200, since)
    assert max(waits) < FELT_SECONDS, waits


@pytest.mark.skipif(bool(missing()), reason="the extra `embeddings` is not installed")
def test_a_call_is_noted_with_what_it_means_and_without_what_it_says(gateways: Gateways) -> None:
    """At a gateway that hashes meanings: 32 bytes of it, none of the words, for whoever may replay."""
    key = gateways.platform.new_key("meant")
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)).isoformat()
    headers = {"Authorization": f"Key {key}"}
    with httpx.Client(base_url=gateways.urls[1], headers=headers, timeout=10.0, trust_env=False) as client:
        assert client.post(ECHO, json={"text": "a lighthouse in a storm"}).status_code == 200

    def noted() -> list[dict[str, Any]]:
        calls = gateways.admin("GET", f"/abuse/calls?since={urllib.parse.quote(since)}", {})["calls"]
        return [call for call in calls if call["key_id"] == key.partition(":")[0]]

    gateways.platform.wait_until(lambda: bool(noted()), seconds=20.0)
    [call] = noted()
    assert len(base64.b64decode(call["meaning"])) == 32
    assert call["prompt"] is not None
    assert "lighthouse" not in json.dumps(call)


RULES = """\
version: 1
counters:
  - {id: echoes, per: key, count: calls, window: 1h, where: {model: forestay/echo, lane: direct}}
rules:
  - id: too-many-echoes
    code: spend
    per: key
    when: {counter: echoes, at_least: 5}
    then: {standing: suspend, for: 1h, reason: "{echoes} echoes within an hour"}
"""


@pytest.fixture
def acting(gateways: Gateways) -> Iterator[None]:
    """The abuse loop acts, by one rule of the test's own; afterwards it advises by those that come along."""
    gateways.admin("PUT", "/abuse/rules", {"text": RULES})
    gateways.admin("POST", "/modes", {"loop": "abuse", "mode": "act"})
    try:
        yield
    finally:
        gateways.admin("POST", "/modes", {"loop": "abuse", "mode": "advise"})
        gateways.admin("PUT", "/abuse/rules", {"text": ""})


@pytest.mark.usefixtures("acting")
def test_calls_lead_to_a_refusal_everywhere_and_an_appeal_leads_back(gateways: Gateways) -> None:
    """Note, judgement, refusal at both gateways; the caller objects, a person lifts it."""
    key = gateways.platform.new_key("echoing")
    subject = f"key:{key.partition(':')[0]}"
    gateways.felt_after(key, 403, time.monotonic())
    [found] = gateways.admin("GET", f"/abuse/standings?subject={subject}", {})["standings"]
    assert found["standing"]["rule"] == "too-many-echoes"
    assert found["standing"]["evidence"]["echoes"] >= 5
    with gateways.platform.http(key) as client:
        refusal = client.post(ECHO, json={}).json()
        assert refusal["standing"]["code"] == "spend"
        assert "echoes within" not in json.dumps(refusal)
        assert client.post("/standing/appeal", json={"words": "a load test of ours"}).status_code == 201
    gateways.admin("POST", "/abuse/lift", {"subject": subject, "reason": "a load test of theirs"})
    gateways.felt_after(key, 200, time.monotonic())
    [appeal] = gateways.admin("GET", "/abuse/appeals?state=granted&limit=1", {})["appeals"]
    assert appeal["subject"] == subject
