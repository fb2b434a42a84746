"""Notes of calls: what is noted, what never is, and what happens when they cannot be written."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from tests.gateway.test_standing import put
from tests.gateway.world import World, drive

from forestay.errors import Unavailable
from forestay.fleet.standing import StandingKind
from forestay.gateway import call_notes
from forestay.gateway.prompt_text import USUAL_NAMES, text_and_shape, text_fields
from forestay.telemetry.call_facts import CallFact
from forestay.telemetry.metrics import CALLS_NOT_NOTED, TEXT_NOT_HASHED

KEY = b"k" * 32
SECRET_WORDS = "a very private wish about a lighthouse"


async def noted(world: World) -> list[CallFact]:
    """What was noted so far."""
    await world.gateway.notes.flush()
    return world.calls.kept


@pytest.mark.parametrize(
    ("path", "lane"), [("/queue/acme/echo", "queue"), ("/run/acme/echo", "direct"), ("/run/acme/echo/stream", "stream")]
)
async def test_a_call_of_a_model_leaves_one_note(world: World, path: str, lane: str) -> None:
    """Who, from where, what for, how it ended, and bits of what it said."""
    world.model.release.set()
    reply = await world.call("POST", path, {"prompt": SECRET_WORDS})
    [fact] = await noted(world)
    assert (fact.lane, fact.tenant_id, fact.model_id, fact.accepted) == (lane, "acme", "acme/echo", True)
    assert fact.key_id == world.key.partition(":")[0]
    assert (fact.network, fact.status_code, fact.prompt_chars) == ("127.0.0.0/24", 200, len(SECRET_WORDS))
    assert fact.prompt is not None
    assert fact.predicted_seconds > 0
    assert str(fact.call_id) == reply.headers["x-fal-request-id"]


async def test_no_note_holds_the_prompt_the_credential_or_the_address(world: World) -> None:
    """Whoever reads facts learns none of the three."""
    await world.call("POST", "/queue/acme/echo", {"prompt": SECRET_WORDS})
    await world.call("POST", "/queue/acme/echo", {"prompt": "x"}, key=f"{world.key[:16]}:wrong-secret-of-mine")
    text = repr([msgspec.structs.asdict(fact) for fact in await noted(world)])
    for secret in ("lighthouse", "private", "wrong-secret-of-mine", world.key.partition(":")[2], "127.0.0.1"):
        assert secret not in text


async def test_polls_results_and_health_leave_none(world: World) -> None:
    """Waiting is no use of a model."""
    request_id = await world.submit()
    await noted(world)
    world.calls.kept.clear()
    for path in (
        f"/queue/acme/echo/requests/{request_id}/status",
        f"/queue/acme/echo/requests/{request_id}",
        "/health",
    ):
        await world.call("GET", path)
    assert await noted(world) == []


async def test_a_refused_credential_is_noted_with_what_it_claimed(world: World) -> None:
    """Wherever it was tried; the same credential has the same digest; a call without one leaves no note."""
    known = world.key.partition(":")[0]
    for path, key in (
        ("/queue/acme/echo", f"{known}:bad"),
        ("/admin/keys", f"{known}:bad"),
        ("/run/acme/echo", "0123456789abcdef:x"),
    ):
        await world.call("POST", path, {"prompt": "a"}, key=key)
    await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, key=None)
    facts = await noted(world)
    assert [fact.cause for fact in facts] == ["wrong_secret", "wrong_secret", "unknown"]
    assert [fact.claimed for fact in facts] == [known, known, "0123456789abcdef"]
    assert facts[0].tried == facts[1].tried != facts[2].tried
    assert {(fact.key_id, fact.tenant_id) for fact in facts} == {("", "")}


async def test_a_refusal_is_noted_with_its_cause(world: World) -> None:
    """A suspended caller is told apart from a stranger."""
    await put(world, StandingKind.SUSPEND)
    await world.call("POST", "/queue/acme/echo", {"prompt": "a"})
    [fact] = await noted(world)
    assert (fact.accepted, fact.cause, fact.status_code) == (False, "suspended", 403)
    assert fact.key_id == world.key.partition(":")[0]


async def test_a_new_version_of_a_client_is_no_new_client_and_another_kind_is(world: World) -> None:
    """Versions are left out; the order of a client's own headers is not."""
    for headers in (
        {"user-agent": "fal-client/1.0.3 (python)", "accept": "*/*"},
        {"user-agent": "fal-client/2.11.0 (python)", "accept": "*/*"},
        {"user-agent": "curl/8.1", "accept": "*/*"},
        {"accept": "*/*", "accept-language": "en", "user-agent": "fal-client/1.0.3 (python)"},
    ):
        await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, headers)
    agents = [fact.agent for fact in await noted(world)]
    assert agents[0] == agents[1]
    assert len(set(agents)) == 3


async def test_near_prompts_get_near_bits_and_their_settings_a_shape(world: World) -> None:
    """The seed aside, the same request beside another text has the same shape."""
    bodies = [
        {"prompt": "a red dragon over the city at night", "steps": 4},
        {"prompt": "a blue dragon over the city at night", "steps": 4},
        {"prompt": "a red dragon over the city at night", "steps": 9},
    ]
    for body in bodies:
        await world.call("POST", "/queue/acme/echo", body)
    first, second, third = await noted(world)
    assert first.prompt is not None
    assert second.prompt is not None
    assert ((first.prompt ^ second.prompt) & ((1 << 64) - 1)).bit_count() <= 16
    assert (first.prompt, first.raw) == (third.prompt, third.raw)
    assert first.shape == second.shape != third.shape


async def test_what_cannot_be_written_is_kept_and_then_dropped_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away for a while loses nothing; one that is away for long loses the oldest, visibly."""
    monkeypatch.setattr(call_notes, "MAX_KEPT", 3)
    world.calls.silent = True
    for number in range(5):
        await world.call("POST", "/queue/acme/echo", {"prompt": f"number {number}"})
    with pytest.raises(Unavailable):
        await world.gateway.notes.flush()
    assert world.ports.metrics.value(CALLS_NOT_NOTED, "full") >= 1
    world.calls.silent = False
    kept = await noted(world)
    assert 1 <= len(kept) <= 4
    assert all(fact.prompt is not None for fact in kept)


async def test_a_round_ends_though_calls_keep_coming(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while a round writes waits for the next: a busy gateway writes in batches, not row by row."""
    write = world.calls.write

    async def meanwhile(batch: Sequence[CallFact]) -> None:
        await write(batch)
        await world.call("POST", "/queue/acme/echo", {"prompt": "another"})

    monkeypatch.setattr(world.calls, "write", meanwhile)
    await world.call("POST", "/queue/acme/echo", {"prompt": "one"})
    async with asyncio.timeout(5):
        await world.gateway.notes.flush()
    assert await noted(world)


async def test_odd_bodies_are_noted_without_text(world: World) -> None:
    """A body that is no JSON or far too large breaks no round."""
    await drive(world.gateway, world.request("POST", "/run/acme/echo", raw=b"{broken"))
    await world.call("POST", "/run/acme/echo", {"prompt": "a", "pad": "x" * 300_000})
    assert [fact.prompt for fact in await noted(world)] == [None, None]


async def test_bodies_that_wait_to_be_hashed_take_no_more_than_their_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it calls are noted without their text, visibly; what was hashed gives its room back."""
    monkeypatch.setattr(call_notes, "MAX_KEPT_BYTES", 100)
    for _ in range(2):
        for word in ("first", "second"):
            await world.call("POST", "/queue/acme/echo", {"prompt": f"{word} {'x' * 50}"})
        await world.gateway.notes.flush()
    assert [fact.prompt is None for fact in await noted(world)] == [False, True, False, True]
    assert world.ports.metrics.value(TEXT_NOT_HASHED) == 2


# Fields -------------------------------------------------------------------------------------------------------------
def openapi_of(properties: dict[str, object], components: dict[str, object] | None = None) -> dict[str, object]:
    """A model's description with one endpoint."""
    schema = {"type": "object", "properties": properties}
    body = {"content": {"application/json": {"schema": schema}}}
    return {"paths": {"/": {"post": {"requestBody": body}}}, "components": {"schemas": components or {}}}


def test_text_fields_are_strings_that_are_no_choice_no_format_and_no_link() -> None:
    """By schema, through references, unions and lists; a model that says nothing is read by the usual names."""
    components: dict[str, object] = {
        "Line": {"type": "object", "properties": {"words": {"type": "string"}, "voice_id": {"type": "string"}}}
    }
    described = openapi_of(
        {
            "prompt": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "style": {"type": "string", "enum": ["a", "b"]},
            "image_url": {"type": "string"},
            "when": {"type": "string", "format": "date-time"},
            "steps": {"type": "integer"},
            "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        components,
    )
    assert text_fields(described, "/") == {"prompt", "words", "tags"}
    assert text_fields(None, "/") == USUAL_NAMES
    assert text_fields(described, "/other") == USUAL_NAMES


def test_text_is_gathered_wherever_it_lies_and_links_are_not_text() -> None:
    """Nested, in lists, bounded; a data URI in a prompt is no prompt."""
    fields = frozenset({"prompt", "words"})
    value = {"prompt": "one", "lines": [{"words": "two"}, {"words": "data:image/png;base64,AAAA"}], "n": 3}
    assert text_and_shape(value, fields, KEY)[0] == "one\ntwo"
    assert len(text_and_shape({"prompt": "x" * 100_000}, fields, KEY)[0]) <= 8_192
    deep: object = "x"
    for _ in range(200):
        deep = {"a": deep}
    assert text_and_shape(deep, frozenset({"a"}), KEY)[0] == ""


def test_a_shape_leaves_text_seeds_and_links_aside() -> None:
    """Size and steps are the shape; what differs each time is not."""
    fields = frozenset({"prompt"})
    one = text_and_shape({"prompt": "a", "seed": 1, "steps": 4, "image_url": "https://a/b"}, fields, KEY)[1]
    two = text_and_shape({"prompt": "b", "seed": 2, "steps": 4, "image_url": "https://a/c"}, fields, KEY)[1]
    assert one == two != text_and_shape({"steps": 5}, fields, KEY)[1]
    assert text_and_shape({"prompt": "a"}, fields, KEY)[1] == 0
