"""Admin routes of readiness: a model's score card, letting it in, and waivers. `readiness/review` decides."""

import dataclasses
import datetime as dt

import msgspec

from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_entry import open_reviewed, sources_of
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId
from forestay.readiness.gather import review_model
from forestay.readiness.model import Card, Waiver
from forestay.readiness.postgres_store import Standing
from forestay.readiness.review import ITEM_NAMES, checked_waiver


class _Waive(msgspec.Struct, forbid_unknown_fields=True):
    item: str
    owner: str
    reason: str
    until: dt.date


class _Admit(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


async def get_readiness(act: Act) -> Reply:
    """Review a model now and show its card."""
    card = await _reviewed(act)
    await sources_of(act).store.keep(card)
    return json_reply(200, shown(card, await sources_of(act).store.standing(card.model_id)))


async def post_admit(act: Act) -> Reply:
    """Let a model in, or say exactly what is missing."""
    reason = plain_text("reason", (await act.json(_Admit)).reason)
    card = await _reviewed(act)
    if not card.ready:
        await sources_of(act).store.keep(card)
        raise Problem(409, f"{card.model_id} is not ready. " + " | ".join(card.missing), "refused")
    audit = AuditEntry(card.at, act.actor, "admit_model", f"model:{card.model_id}", _counts(card), reason)
    await sources_of(act).store.admit(card, audit)
    await open_reviewed(act, card.model_id)
    return json_reply(200, shown(card, await sources_of(act).store.standing(card.model_id)))


async def post_waiver(act: Act) -> Reply:
    """Accept for a while that an item does not pass."""
    asked = await act.json(_Waive)
    model_id = _model_id(act)
    now = (await act.ports.fleet.load()).now
    waiver = checked_waiver(Waiver(asked.item, asked.owner, asked.reason, asked.until), ITEM_NAMES, now.date())
    detail = {"item": waiver.item, "owner": waiver.owner, "until": str(waiver.until)}
    audit = AuditEntry(now, act.actor, "waive_readiness", f"model:{model_id}", detail, waiver.reason)
    await sources_of(act).store.waive(model_id, waiver, audit)
    card = await _reviewed(act)
    return json_reply(200, shown(card, await sources_of(act).store.standing(model_id)))


def shown(card: Card, standing: Standing | None) -> dict[str, object]:
    """Return a card as it is told."""
    rows = [
        {
            **dataclasses.asdict(row.finding),
            "holds_up": row.holds_up,
            "waived": None if row.waived is None else dataclasses.asdict(row.waived),
        }
        for row in card.rows
    ]
    return {
        "model_id": card.model_id,
        "revision_id": card.revision_id,
        "at": card.at,
        "ready": card.ready,
        "missing": card.missing,
        "admitted_at": standing.admitted_at if standing else None,
        "admitted_by": standing.admitted_by if standing else None,
        "unready_since": standing.unready_since if standing else None,
        "items": rows,
    }


def _counts(card: Card) -> dict[str, object]:
    waived = [row.finding.item for row in card.rows if row.waived is not None]
    return {"revision": card.revision_id, "waived": waived}


async def _reviewed(act: Act) -> Card:
    model_id = _model_id(act)
    card = await review_model(sources_of(act), await act.ports.fleet.load(), model_id)
    if card is None:
        raise NotThere(f"no revision of {model_id} serves; deploy it first")
    return card


def _model_id(act: Act) -> ModelId:
    return ModelId(f"{act.path('owner')}/{act.path('alias')}")
