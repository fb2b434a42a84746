"""Admin routes of rollouts' reports: the page's facts, the pictures of its shadow, and the replay of its verdicts.

Pictures show what callers' requests made: they need the permission to read content. Decides nothing else.
"""

import dataclasses

from forestay.gateway.admin_reading import Act, NotThere
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import parse_request_id
from forestay.rollouts.model import Rollout
from forestay.rollouts.replay import PAGE, at_beginning, had_canary, learn_page, replay_canary, replay_shadow
from forestay.rollouts.report import report_of

MOST_PAGES = 200  # of facts, in one replay


async def get_report(act: Act) -> Reply:
    """Show what a rollout was."""
    rollout = await found_rollout(act)
    fleet = await act.ports.fleet.load()
    journal = await act.ports.admin.rollouts.journal(rollout.rollout_id)
    pairs = await act.ports.admin.shadows.pairs(rollout.rollout_id)
    revisions = fleet.revisions.get(rollout.control), fleet.revisions.get(rollout.candidate)
    return json_reply(200, dataclasses.asdict(report_of(rollout, revisions, journal, pairs)))


async def get_sheet(act: Act) -> Reply:
    """Give the picture of one comparison."""
    rollout = await found_rollout(act)
    request_id = parse_request_id(act.path("request_id"))
    pairs = await act.ports.admin.shadows.pairs(rollout.rollout_id)
    keys = [pair.outcome.sheet_key for pair in pairs if pair.request_id == request_id and pair.outcome is not None]
    data = await act.ports.objects.get(keys[0]) if keys and keys[0] else None
    if data is None:
        raise NotThere("no picture of this request in the rollout's shadow; they are kept for 30 days")
    return Reply(200, data, ((b"content-type", b"image/png"), (b"cache-control", b"no-store")))


async def post_replay(act: Act) -> Reply:
    """Recompute the verdicts from what is stored, and say whether they agree."""
    rollout = await found_rollout(act)
    pairs = await act.ports.admin.shadows.pairs(rollout.rollout_id)
    parts = [item for item in (replay_shadow(rollout, pairs),) if item is not None]
    if had_canary(rollout):
        parts.append(replay_canary(rollout, await _learned_again(act, rollout)))
    told = [dataclasses.asdict(item) for item in parts]
    agrees = all(item.agrees for item in parts)
    return json_reply(200, {"rollout_id": rollout.rollout_id, "agrees": agrees, "parts": told})


async def _learned_again(act: Act, rollout: Rollout) -> Rollout:
    replayed, more = at_beginning(rollout), True
    for _ in range(MOST_PAGES):
        if not more:
            break
        facts = await act.ports.admin.rollout_facts.after(rollout.model_id, replayed.cursor, PAGE)
        replayed, more = learn_page(replayed, facts, rollout.cursor)
    return replayed


async def found_rollout(act: Act) -> Rollout:
    """Return the rollout that the path names; raises NotThere."""
    name = act.path("rollout_id")
    rollout = await act.ports.admin.rollouts.get(name)
    if rollout is None:
        raise NotThere(f"no rollout {name[:200]!r}; `forestay rollout list` shows those that exist")
    return rollout
