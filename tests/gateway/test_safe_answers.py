"""Answers in a browser: nothing that a model or a stranger wrote may act in the name of the gateway's own origin."""

import pytest
from tests.gateway.world import Reply, World

from forestay.queue.model import Answer, State

HOSTILE = {
    "content-type": "text/html",
    "content-security-policy": "default-src * 'unsafe-inline'",
    "x-content-type-options": "none",
    "clear-site-data": '"*"',
    "service-worker-allowed": "/",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "refresh": "0; url=https://elsewhere.example/",
    "alt-svc": 'h2="elsewhere.example:443"',
    "report-to": "{}",
    "nel": "{}",
    "www-authenticate": "Basic realm=platform",
    "set-cookie": "session=theirs",
    "x-fal-billable-units": "2",
}
KEPT = {"content-type", "x-fal-billable-units"}


def sandboxed(reply: Reply) -> bool:
    """Tell whether a browser would run nothing of this answer, and would not guess what it is."""
    policies = [value for name, value in reply.headers.items() if name == "content-security-policy"]
    return (
        reply.headers.get("x-content-type-options") == "nosniff"
        and len(policies) == 1
        and "sandbox" in policies[0]
        and "allow-scripts" not in policies[0]
        and "default-src 'none'" in policies[0]
    )


@pytest.mark.threat("API8:2023")
async def test_a_page_that_a_model_answers_runs_nothing_on_our_origin(world: World) -> None:
    """People's sessions are cookies of this origin: a script here would act as whoever is signed in."""
    request_id = await world.submit()
    lease = await world.claim(request_id)
    await world.finish(lease, Answer(200, HOSTILE, b"<script>fetch('/admin/keys')</script>"), State.SUCCEEDED)
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html")
    assert sandboxed(reply), reply.headers
    assert {name for name in HOSTILE if reply.headers.get(name) == HOSTILE[name]} == KEPT


@pytest.mark.threat("API8:2023")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/run/acme/echo", 200),
        ("POST", "/run/acme/echo/big", 200),
        ("POST", "/run/acme/none", 404),
        ("GET", "/queue/acme/echo/requests/nonsense", 404),
        ("DELETE", "/cdn/files/nobody/a.html", 405),
        ("GET", "/rest/nothing", 404),
        ("GET", "/cdn/nothing", 404),
    ],
)
async def test_every_answer_off_our_own_root_is_sandboxed(world: World, method: str, path: str, status: int) -> None:
    """Results, bytes as they come, errors, other methods: none of them is a page of ours."""
    reply = await world.call(method, path, {"prompt": "a"} if method == "POST" else None)
    assert reply.status == status, reply.body
    assert sandboxed(reply), reply.headers


async def test_nothing_is_sniffed_on_our_own_root_either(world: World) -> None:
    """Pages of ours would be served there, so it is not sandboxed; its answers are what they say."""
    for path in ("/health", "/openapi.json", "/admin/keys", "/nothing"):
        reply = await world.call("GET", path)
        assert reply.headers["x-content-type-options"] == "nosniff", path
        assert "content-security-policy" not in reply.headers, path
