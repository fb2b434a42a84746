"""Letting a model in, as the person who owns it sees it."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran
from tests.cli.test_rolling_deploy import MODEL, report, serving, spec_of
from tests.conformance.fleet_values import replica_of

from forestay.fleet.grants import Verb
from forestay.fleet.keys import Caller, KeyRequest, Scope
from forestay.fleet.store import FleetStore
from forestay.gateway.auth import authenticate_call
from forestay.gateway.responses import Reply
from forestay.ids import RevisionId, TenantId
from forestay.readiness.gather import Sources
from forestay.readiness.loop import ReadinessLoop
from forestay.readiness.review import ITEM_NAMES
from forestay.telemetry.metrics import MODELS_UNREADY, Metrics

Forestay = Callable[..., Awaitable[Ran]]


async def test_a_model_is_let_in_once_nothing_is_missing_and_rots_visibly(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Each refusal names item, evidence and mend; a waiver has an end; a review later says that it is ready no more."""
    assert (await forestay("model", "readiness", "acme/nothing")).status != 0
    await serving(forestay, platform, tmp_path)
    refused = await forestay("model", "admit", MODEL)
    assert refused.status == 1
    assert "safety.policy" in refused.out
    card = (await forestay("model", "readiness", MODEL, "--json")).json()
    items = cast("list[dict[str, object]]", card["items"])
    assert [item["item"] for item in items] == list(ITEM_NAMES)
    until = (await platform.ports.fleet.load()).now.date().isoformat()
    for item in [str(item["item"]) for item in items if item["holds_up"]]:
        wrong = await forestay(
            "model", "waive", MODEL, item, "--owner", "ada", "--reason", "x", "--until", "2020-01-01"
        )
        assert "until" in wrong.err
        words = ("--owner", "ada", "--reason", "until the audit", "--until", until)
        assert (await forestay("model", "waive", MODEL, item, *words)).status == 0
    admitted = await forestay("model", "admit", MODEL, "--reason", "reviewed", "--json")
    assert admitted.status == 0, admitted.err
    assert admitted.json()["admitted_by"]
    await platform.database.execute("DELETE FROM readiness_waivers")
    metrics = Metrics()
    await ReadinessLoop(sources_of(platform), metrics).run_once()
    later = (await forestay("model", "readiness", MODEL, "--json")).json()
    assert (later["ready"], later["unready_since"] is not None, later["admitted_at"] is not None) == (False, True, True)
    assert metrics.value(MODELS_UNREADY) == 1
    rows = await platform.database.fetch("SELECT action FROM audit_log")
    assert {"admit_model", "waive_readiness"} <= {str(row["action"]) for row in rows}


def sources_of(platform: Platform) -> Sources:
    """What the controller's loop reads."""
    ports = platform.ports
    assert ports.safety is not None
    fleet: FleetStore = ports.fleet
    return Sources(fleet, ports.admin.slos, ports.artefacts, ports.safety.store, ports.admin.readiness)


async def test_where_a_spec_asks_for_it_nobody_calls_a_model_before_it_is_let_in(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """In review its tenant's administrators alone may call it; an admission opens it, and later the gate stands."""
    file = spec_of(tmp_path, "one")
    file.write_text(file.read_text() + "admission: required\n")
    revision_id = RevisionId((await forestay("deploy", file)).out.strip())
    fleet = await platform.ports.fleet.load()
    entry = fleet.models[MODEL]
    assert entry.visibility == "review"
    both = KeyRequest(TenantId("acme"), "both", frozenset({Scope.ADMIN, Scope.API}))
    issued = await platform.ports.key_store.create(both, actor="system:test")
    assert issued is not None
    for key, allowed in ((issued.credential, True), (platform.api_key, False)):
        scope = {"type": "http", "headers": [(b"authorization", f"Key {key}".encode())], "query_string": b""}
        said = await authenticate_call(scope, platform.ports, entry, (Verb.RUN,))
        assert isinstance(said, Caller) is allowed, said
    assert isinstance(said, Reply)
    assert b"in review" in said.body
    await report(platform, replica_of(fleet.revisions[revision_id]))
    await _waive_all(platform)
    assert (await forestay("model", "admit", MODEL, "--reason", "seen")).status == 0
    assert (await platform.ports.fleet.load()).models[MODEL].visibility == "shared"
    assert "admitted (reviewed " in (await forestay("model", "list")).out
    await platform.database.execute("DELETE FROM readiness_waivers")
    file.write_text(file.read_text().replace("one", "two"))
    refused = await forestay("deploy", file)
    assert refused.status == 1
    assert "gets no traffic" in refused.err
    assert "safety.policy" in refused.err
    await ReadinessLoop(sources_of(platform), Metrics()).run_once()
    assert "rotted for " in (await forestay("model", "list")).out


async def _waive_all(platform: Platform) -> None:
    """Accept every item for today."""
    today = (await platform.ports.fleet.load()).now.date()
    for item in ITEM_NAMES:
        await platform.database.execute(
            "INSERT INTO readiness_waivers (model_id, item, owner, reason, until, given_by) "
            "VALUES ($1, $2, 'ada', 'until the audit', $3, 'human:test')",
            MODEL, item, today,
        )  # fmt: skip
