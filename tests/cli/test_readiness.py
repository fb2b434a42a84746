"""Letting a model in, as the person who owns it sees it."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran
from tests.cli.test_rolling_deploy import MODEL, serving

from forestay.fleet.store import FleetStore
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
