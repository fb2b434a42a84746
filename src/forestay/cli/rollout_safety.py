"""`forestay rollout replay-safety`: a labelled set of prompts under the candidate's policy and under the control's.

Texts are judged on this machine by the detectors that ship, rewritten where a policy says so and judged again, as the
gateway does. Only counts go to the platform, under the name of whoever ran it; no prompt is printed or sent. What they
come to is `rollouts/safety_counts`'s.
"""

import asyncio
import hashlib
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from forestay.cli.client import PlatformClient, connect
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.cli.prompt_file import Asked, read_dataset
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.fleet.spec import UNGUARDED
from forestay.rollouts.model import Replayed
from forestay.rollouts.safety_counts import Judged, check_replayed, count_rows

if TYPE_CHECKING:
    from forestay.safety.policy import Policy
    from forestay.safety.text_replay import TextReplay

_TOLD_EVERY = 20  # rows
Told = dict[str, object]


def replay_safety(
    rollout: Annotated[str, typer.Argument(help="The rollout's id, or owner/alias for the model's newest.")],
    dataset: Annotated[pathlib.Path, typer.Option(help="A CSV or CSV.gz file with a header, in UTF-8.")],
    label: Annotated[str, typer.Option(help="The column that says whether a row is harmful.")],
    text_column: Annotated[str, typer.Option(help="The column that holds the text.")] = "prompt",
    positive: Annotated[str, typer.Option(help="What the label says of harmful rows, where it is a word.")] = "",
    reason: Annotated[str, typer.Option(help="Why this set speaks for the model's content; kept with the audit.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Judge labelled prompts by both policies of a rollout, and hand the counts to its gate of safety.

    Exit code 1 where the candidate's policy is proved worse, or the set is too small to tell.

    Example: forestay rollout replay-safety forestay/digits --dataset prompts.csv --label unsafe --reason "our own set"
    """
    from forestay.cli.rollout import name_of
    from forestay.safety.text_replay import TextReplay, local_detectors

    texts, truth = read_dataset(Asked(dataset, text_column, label, positive, None))
    client = connect()
    found = cast("Told", client.get(f"/admin/rollouts/{name_of(rollout)}"))
    before, after = _policies(client, found)
    both = (before, after)
    rows = asyncio.run(_judged(TextReplay(SystemClock(), local_detectors(both)), both, texts, truth))
    digest = hashlib.sha256(dataset.read_bytes()).hexdigest()[:12]
    played = count_rows(f"{dataset.name}, sha256 {digest}", rows)
    verdict = check_replayed(before.policy_id, after.policy_id, [played])
    client.post(f"/admin/rollouts/{found['rollout_id']}/safety", _body(played, reason or "a labelled set"))
    if json:
        print_json({"verdict": verdict.verdict, "evidence": verdict.evidence, **_body(played, reason)})
    else:
        say(f"{verdict.verdict}: {verdict.evidence}")
    if verdict.verdict != "pass":
        raise typer.Exit(1)


def _body(played: Replayed, reason: str) -> Told:
    return {
        "reason": reason,
        "source": played.source,
        "unsafe": played.unsafe,
        "newly_passed": played.newly_passed,
        "newly_stopped": played.newly_stopped,
        "safe": played.safe,
        "newly_blocked": played.newly_blocked,
        "newly_freed": played.newly_freed,
        "unknown": played.unknown,
    }


def _policies(client: PlatformClient, rollout: Mapping[str, object]) -> "tuple[Policy, Policy]":
    """Read the policies of control and candidate as they are in force."""
    from forestay.safety.policy_file import read_policy

    listed = cast("dict[str, list[Told]]", client.get(f"/admin/models/{rollout['model_id']}/revisions"))
    specs = {item["revision_id"]: cast("Told", item["spec"]) for item in listed["revisions"]}
    found: list[Policy] = []
    for side in ("control", "candidate"):
        name = str(cast("Told", specs[rollout[side]]["safety"])["policy"])
        if name == UNGUARDED:
            raise UsageError("rollout", f"its {side} {rollout[side]} is judged by nothing: there is nothing to replay")
        stored = cast("Told", client.get(f"/admin/safety/policies/{name}"))
        found.append(read_policy(str(stored["text"]), name, cast("int", stored["version"])))
    if found[0] == found[1]:
        raise UsageError("rollout", f"control and candidate are both judged by {found[0].policy_id}")
    return found[0], found[1]


async def _judged(
    replay: "TextReplay", policies: tuple["Policy", "Policy"], texts: Sequence[str], truth: Sequence[bool | None]
) -> list[Judged]:
    """Judge every labelled text by both; on a terminal say how far it got."""
    rows: list[Judged] = []
    for number, (text, unsafe) in enumerate(zip(texts, truth, strict=True), 1):
        if unsafe is not None:
            before, after = [await replay.action(policy, text) for policy in policies]
            rows.append((unsafe, before, after))
        if sys.stderr.isatty() and (number % _TOLD_EVERY == 0 or number == len(texts)):
            typer.secho(f"\r{number:,} of {len(texts):,} rows judged", err=True, nl=number == len(texts))
    return rows
