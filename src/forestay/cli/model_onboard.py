"""`forestay model onboard`: from an app's file to an admitted model, by one command and one edit of its spec.

The shell of the whole way: write the spec, wait for the person's edit, deploy, send some requests, review, let in. Each
step is a command of its own too; what a step refuses it says itself, with the mend. Run again it goes on where it
stopped.
"""

import dataclasses
import functools
import json as json_module
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import cast

import typer

from forestay.cli.client import PlatformClient, connect
from forestay.cli.model_readiness import print_card
from forestay.cli.output import print_json, say
from forestay.cli.trial import Ask, Sender, Trial, TrialFailed, checked
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.fleet.spec import ModelSpec
from forestay.rollouts.rolling import Strategy

REQUESTS = 160  # 149 without a failure prove at 95 % that at most 2 % of outputs are broken (exact bound)
_LOOK_SECONDS = 0.5
_REVIEW_SECONDS = 2.0
_WORDS_SECONDS = 30.0  # for what the model wrote about a request that failed
Say = Callable[[str], None]
Told = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How a person wants to be taken there."""

    edit_seconds: float = 900.0  # how long the edit is waited for; 0: say what is left and end
    requests: int = REQUESTS
    budget_seconds: float = 600.0
    ready_seconds: float = 180.0  # how long facts and objectives are waited for
    signing_key: pathlib.Path | None = None
    body: str = ""  # JSON of an input, or @FILE; empty: made from the interface
    reason: str = "onboarded"
    python: str = ""  # interpreter on this machine that has the app's packages


class Onboarding:
    """One run of the way."""

    def __init__(self, way: Way, client: PlatformClient, clock: SystemClock, say: Say) -> None:
        self._way = way
        self._client = client
        self._clock = clock
        self._say = say

    def run(self, app: str, out: pathlib.Path | None) -> Told:
        """Go all of it; returns the card, which says `ready` and `missing`."""
        spec_file = self.written(app, out)
        self.edited(spec_file)
        spec = self.deployed(spec_file)
        self.tried(spec)
        return self.admitted(spec)

    def written(self, app: str, out: pathlib.Path | None) -> pathlib.Path:
        """Write the spec where there is none; a YAML file is taken for the spec itself."""
        from forestay.cli.model_authoring import write_spec

        if app.endswith((".yaml", ".yml")):
            return pathlib.Path(app)
        target = out or pathlib.Path(app.partition("::")[0]).parent / "model.yaml"
        if target.exists():
            self._say(f"1. {target} is there: going on with it")
            return target
        write_spec(app, target, {})
        self._say(f"1. wrote {target}")
        return target

    def edited(self, spec_file: pathlib.Path) -> None:
        """Wait until the spec is whole; says what is left each time that somebody has saved it."""
        from forestay.cli.model_authoring import faults_of

        until = self._clock.monotonic() + self._way.edit_seconds
        told: Sequence[str] | None = None
        while faults := faults_of(spec_file):
            if faults != told:
                self._say(f"2. {spec_file} needs you; save it and this goes on:")
                for fault in faults:
                    self._say(f"   {fault}")
            told = faults
            if self._clock.monotonic() >= until:
                raise UsageError(str(spec_file), f"is not whole: {'; '.join(faults)}; edit it and run this again")
            self._clock.block(_LOOK_SECONDS)
        self._say(f"2. {spec_file} is whole")

    def deployed(self, spec_file: pathlib.Path) -> ModelSpec:
        """Sign if a key was given, deploy, and wait until the revision has the traffic."""
        from forestay.cli.deploying import deploy, lacks_room, read_candidate, wait_for_switch

        # Inputs are made from its interface, where the person gives none.
        read = functools.partial(read_candidate, spec_file, python=self._way.python, must_describe=not self._way.body)
        candidate = read()
        if self._way.signing_key is not None:
            from forestay.cli.signing_bundle import sign_weights

            for folder in sign_weights(candidate.plan, self._way.signing_key):
                self._say(f"3. signed {folder}")
            candidate = read()
        done = deploy(self._client, candidate, lambda text: self._say(f"3. {text}"), Strategy.ROLLING)
        if lacking := lacks_room(self._client, candidate.spec):
            raise UsageError(str(spec_file), f"{lacking}; then run this again")
        if done.pending:
            wait_for_switch(self._client, done, lambda text: self._say(f"3. {text}"), self._clock)
        return candidate.spec

    def tried(self, spec: ModelSpec) -> None:
        """Send requests to its endpoints by turns: the first one starts it."""
        asks = asks_of(self._client, spec, self._way.body, self._way.requests)
        if not asks:
            return
        sender = Sender(self._client, spec.model_id, self._clock)
        self._say(f"4. sending {len(asks)} requests; the first one starts the model")
        first = self._first(sender, spec, asks[0])
        if any(answer.status >= 500 for answer in first.answers):
            words = sender.words(asks[0], _WORDS_SECONDS)
            self._say("4. it failed; sent again through the queue, the model wrote:" if words else "4. it failed")
            for line in words:
                self._say(f"   {line}")
        checked(dataclasses.replace(first, stopped="the first request failed" if first.failures else ""))
        trial = checked(sender.many(asks[1:], spec.limits.max_multiplexing, self._way.budget_seconds))
        failed = sum(trial.failures.values())
        rest = f"; {trial.stopped}" if trial.stopped else ""
        self._say(f"4. {len(trial.answers) + 1} requests in {trial.wall_seconds:.0f} s, {failed} failed{rest}")

    def _first(self, sender: Sender, spec: ModelSpec, ask: Ask) -> Trial:
        """Send the request that starts the model; TrialFailed, with its own words, once a start of it has failed."""
        answer: Future[Trial] = Future()

        def send() -> None:
            try:
                answer.set_result(sender.many([ask], 1, self._way.budget_seconds))
            except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the answer
                answer.set_exception(error)

        # A daemon: nobody waits for the answer of a model that does not start, nor does the end of this command.
        threading.Thread(target=send, daemon=True).start()
        while not answer.done():
            wait([answer], _LOOK_SECONDS)
            told = cast("Told", self._client.get(f"/admin/models/{spec.model_id}"))
            for replica in cast("list[Told]", told["replicas"]):
                if replica["state"] == "backoff" and not answer.done():
                    raise TrialFailed(
                        f"{spec.model_id} does not start: {replica['detail']}\nmend it, and run this again"
                    )
        return answer.result()

    def admitted(self, spec: ModelSpec) -> Told:
        """Review until it is ready or the time is over, then let it in; returns the card."""
        until = self._clock.monotonic() + self._way.ready_seconds
        told: object = None
        while True:
            card = cast("Told", self._client.get(f"/admin/models/{spec.model_id}/readiness"))
            if card["ready"]:
                break
            if card["missing"] != told:
                self._say("5. not ready yet: " + "; ".join(cast("list[str]", card["missing"])))
            told = card["missing"]
            if self._clock.monotonic() >= until or not _comes_by_itself(card):
                return card
            self._clock.block(_REVIEW_SECONDS)
        card = cast("Told", self._client.post(f"/admin/models/{spec.model_id}/admit", {"reason": self._way.reason}))
        self._say(f"5. {spec.model_id} is admitted by {card['admitted_by']}")
        return card


def onboard(app: str, out: pathlib.Path | None, way: Way, *, json: bool) -> None:
    """Take an app to an admitted model; exit code 1 with the card when something is missing."""
    client = connect()
    client.get("/admin/whoami")  # nobody edits a spec for a platform that is not there
    card = Onboarding(way, client, SystemClock(), lambda text: say(text, err=True)).run(app, out)
    if json:
        print_json(card)
    elif not card["ready"]:
        print_card(card)
    if not card["ready"]:
        raise typer.Exit(1)
    if not json:
        say(f"{card['model_id']} is admitted")


def asks_of(client: PlatformClient, spec: ModelSpec, body: str, count: int) -> list[Ask]:
    """Return `count` requests: the person's own input on the first endpoint, else made ones on every `call` by turns.

    Raises UsageError where an endpoint's input cannot be made and none was given.
    """
    from forestay.capacity.sample_inputs import sample_input

    calls = [item for item in spec.endpoints if item.kind == "call"]
    if body or not calls:
        return [Ask(spec.endpoints[0].path, read_body(body))] * count if body else []
    document = interface_of(client, spec)
    media = {item.path: {field: item.media_kinds.get(field, "image") for field in item.media_inputs} for item in calls}
    turns = [calls[number % len(calls)] for number in range(count)]
    return [
        Ask(item.path, sample_input(document, item.path, media[item.path], number)) for number, item in enumerate(turns)
    ]


def interface_of(client: PlatformClient, spec: ModelSpec) -> Mapping[str, object] | None:
    """Return the OpenAPI document of the revision that serves; None where it declares none."""
    told = cast("Told", client.get(f"/admin/models/{spec.model_id}", {"interface": "1"}))
    return cast("Mapping[str, object] | None", told.get("openapi"))


def read_body(text: str) -> object:
    """Read an input: JSON, or the file that `@FILE` names; UsageError otherwise."""
    try:
        given = pathlib.Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return cast("object", json_module.loads(given))
    except OSError as error:
        raise UsageError("--input", f"{text[1:]} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError("--input", f'is not JSON ({error}); write an object such as \'{{"prompt": "a"}}\'') from None


_PASSING = frozenset({"start", "objectives", "errors", "broken outputs", "cost", "time", "room", "files"})
"""Items whose facts arrive by themselves soon after a deploy and some requests."""


def _comes_by_itself(card: Told) -> bool:
    """Tell whether waiting may help: nothing else than facts that are on their way keeps the model out."""
    held = {str(item["item"]) for item in cast("list[Told]", card["items"]) if item["holds_up"]}
    return held <= _PASSING
