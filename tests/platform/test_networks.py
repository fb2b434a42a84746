"""Keys that are good in some networks only, at a real platform: straight, and through its CONNECT proxy."""

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import cast

import pytest
from tests.platform.platform import RunningPlatform

HERE, ELSEWHERE = "127.0.0.5", "127.0.0.6"


@pytest.fixture(scope="module")
def several() -> Iterator[RunningPlatform]:
    """A platform whose ports two gateways share: a tunnel must end at the gateway whose proxy it came through."""
    no_judge = {"FORESTAY_JUDGE": "off"}  # nothing is judged here, and its models take long to load
    with RunningPlatform("--workers", "1", "--gateways", "2", environment=no_judge) as running:
        yield running


def issue(platform: RunningPlatform, *networks: str) -> str:
    """Issue a key for these networks."""
    connection = http.client.HTTPConnection(platform.url.removeprefix("http://"), timeout=10)
    headers = {"authorization": f"Key {platform.admin_key}"}
    connection.request("POST", "/admin/keys", json.dumps({"networks": networks}), headers)
    answer = connection.getresponse()
    assert answer.status == 201
    made = cast("dict[str, str]", json.loads(answer.read()))
    connection.close()
    return made["key"]


def status(platform: RunningPlatform, key: str, source: str, *, through_proxy: bool) -> int:
    """Ask for an upload token from a source address; returns the status."""
    headers = {"authorization": f"Key {key}", "content-type": "application/json", "x-forwarded-for": HERE}
    if through_proxy:
        context = ssl.create_default_context(cafile=str(platform.ready["ca_file"]))
        proxy = str(platform.ready["proxy_url"]).removeprefix("http://")
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            proxy, timeout=10, context=context, source_address=(source, 0)
        )
        connection.set_tunnel("rest.fal.ai", 443)
    else:
        host = platform.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=10, source_address=(source, 0))
        headers["host"] = "rest.fal.ai"
    connection.request("POST", "/storage/auth/token", "{}", headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize("through_proxy", [False, True])
def test_who_calls_is_who_connects_through_the_proxy_too(several: RunningPlatform, *, through_proxy: bool) -> None:
    """The proxy connects from loopback; the key is still good only where its caller is. A header does not help."""
    key = issue(several, f"{HERE}/32")
    for _ in range(8):  # whichever gateway takes the connection
        assert status(several, key, HERE, through_proxy=through_proxy) == 200
        assert status(several, key, ELSEWHERE, through_proxy=through_proxy) == 403
    assert status(several, issue(several), ELSEWHERE, through_proxy=through_proxy) == 200
