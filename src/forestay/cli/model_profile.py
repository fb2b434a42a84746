"""`forestay model profile`: measure on a running platform what a model's features cost, and how many at once are best.

The shell of `capacity/profile`: it sends what that plans, within one budget. Its requests are real ones, so what they
show is what a readiness review and the predictor of costs read afterwards.
"""

import dataclasses
import datetime as dt
import statistics
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from forestay.capacity.features import input_schema, reader_of
from forestay.capacity.profile import (
    Growth,
    Level,
    Variant,
    best_level,
    growth_of,
    level_of,
    next_level,
    plan_variants,
    with_memory,
)
from forestay.cli.client import PlatformClient, connect
from forestay.cli.model_onboard import asks_of, interface_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.trial import Ask, Sender, TrialFailed, checked
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.fleet.spec import ModelSpec, spec_from_json
from forestay.ids import is_model_id

_MOST_AT_ONCE = 32
_PER_LEVEL = 6  # requests for each place of a level
_BAR = 30
_PEAK_SECONDS = 30.0  # for one request and its fact
Told = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """What was measured."""

    model_id: str
    endpoint: str
    requests: int
    cold_start_seconds: float | None  # of the replica that became ready last; None: none is loaded
    usual_seconds: float
    usual_memory_bytes: int | None  # the most that its replica held; None: its processes run elsewhere
    usual_device_memory_bytes: int | None
    growth: tuple[Growth, ...]
    levels: tuple[Level, ...]
    best_at_once: int
    stopped: str  # why not all was measured


def profile(
    model: Annotated[str, typer.Argument(help="owner/alias.")],
    endpoint: Annotated[str, typer.Option(help="The endpoint's path; empty: the first that answers calls.")] = "",
    body: Annotated[str, typer.Option("--input", help="A usual input, JSON or @FILE; made from the interface.")] = "",
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Requests for each input.")] = 3,
    budget_seconds: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that all of it may take.")] = 300.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Measure a model that runs: time and memory by steps, size and images, cold start, the best number at a time.

    Example: forestay model profile forestay/digits --budget-seconds 120
    """
    if not is_model_id(model):
        raise UsageError("model", f"{model!r} is not owner/alias")
    client, clock = connect(), SystemClock()
    spec = spec_from_json(cast("Told", client.get(f"/admin/models/{model}"))["spec"])
    measured = ProfileRun(client, spec, clock, budget_seconds).measure(endpoint, body, repeats)
    if json:
        print_json(dataclasses.asdict(measured))
        return
    show(measured)


class ProfileRun:
    """One profile run."""

    def __init__(self, client: PlatformClient, spec: ModelSpec, clock: SystemClock, budget_seconds: float) -> None:
        self._client = client
        self._spec = spec
        self._clock = clock
        self._until = clock.monotonic() + budget_seconds
        self._sender = Sender(client, spec.model_id, clock)
        self._sent = 0

    def measure(self, endpoint: str, body: str, repeats: int) -> Profile:
        """Warm it up, then measure inputs one by one, then levels of concurrency."""
        usual = self._usual(endpoint, body)
        first = self._sender.many([usual], 1, self._left())
        checked(dataclasses.replace(first, stopped="the first request failed" if first.failures else ""))
        document = interface_of(self._client, self._spec)
        scales_with = self._spec.capacity.scales_with
        planned = plan_variants(document, usual.endpoint, cast("Told", usual.body), scales_with)
        medians = self._medians(planned, usual.endpoint, repeats)
        variants = planned[: len(medians)]
        if not medians:
            raise TrialFailed("not one input was measured within the budget; raise --budget-seconds")
        schema = input_schema(document, usual.endpoint) if document is not None else None
        features = reader_of(schema, document or {}, scales_with).read(usual.body)
        peaks = self._peaks(variants, usual.endpoint)
        levels = self._levels(usual)
        growth = with_memory(growth_of(variants, features, medians), variants, features, peaks)
        return Profile(
            model_id=self._spec.model_id,
            endpoint=usual.endpoint,
            requests=self._sent + 1,
            cold_start_seconds=self._cold_start(),
            usual_seconds=medians[0],
            usual_memory_bytes=peaks[0][0] if peaks else None,
            usual_device_memory_bytes=peaks[0][1] if peaks else None,
            growth=tuple(growth),
            levels=tuple(levels),
            best_at_once=best_level(levels).at_once if levels else 1,
            stopped="the budget is spent" if self._left() <= 0 else "",
        )

    def _usual(self, endpoint: str, body: str) -> Ask:
        paths = [item.path for item in self._spec.endpoints if item.kind == "call"]
        if endpoint and endpoint not in paths:
            raise UsageError("--endpoint", f"{endpoint!r} answers no calls; name one of {', '.join(paths) or 'none'}")
        kept = [item for item in self._spec.endpoints if item.path == (endpoint or (paths or ["/"])[0])]
        asks = asks_of(self._client, dataclasses.replace(self._spec, endpoints=tuple(kept)), body, 1)
        if not asks or not isinstance(asks[0].body, dict):
            raise UsageError("--input", "must be a JSON object, sent to an endpoint that answers calls")
        return asks[0]

    def _medians(self, variants: Sequence[Variant], endpoint: str, repeats: int) -> list[float]:
        """Return the median seconds of each variant, in order, as far as half of the budget reaches."""
        medians: list[float] = []
        half = self._left() / 2
        began = self._clock.monotonic()
        for variant in variants:
            left = half - (self._clock.monotonic() - began)
            trial = self._sender.many([Ask(endpoint, variant.body)] * repeats, 1, left)
            self._sent += len(trial.answers)
            seconds = [item.seconds for item in trial.answers if not item.told]
            if trial.failures:
                changed = f"with another {variant.field}" if variant.field else "with a usual input"
                raise TrialFailed(f"{changed} it fails: {next(iter(trial.failures))}; give another --input")
            if not seconds:
                break
            medians.append(statistics.median(seconds))
        return medians

    def _peaks(self, variants: Sequence[Variant], endpoint: str) -> list[tuple[int | None, int | None]]:
        """Return the most memory that each variant took, as far as a fifth of what is left reaches."""
        until = self._clock.monotonic() + self._left() / 5
        found: list[tuple[int | None, int | None]] = []
        for variant in variants:
            left = min(until - self._clock.monotonic(), _PEAK_SECONDS)
            if left <= 0 or (found and found[0] == (None, None)):
                break  # nobody can tell
            peak = self._sender.peak(Ask(endpoint, variant.body), left)
            self._sent += 1
            found.append((peak.memory_bytes, peak.device_memory_bytes))
        return found

    def _levels(self, usual: Ask) -> list[Level]:
        levels: list[Level] = []
        most = min(_MOST_AT_ONCE, 2 * self._spec.limits.max_multiplexing * max(1, self._replicas_ready()))
        while (at_once := next_level(levels, most)) is not None and self._left() > 0:
            trial = self._sender.many([usual] * (_PER_LEVEL * at_once), at_once, self._left())
            self._sent += len(trial.answers)
            seconds = [item.seconds for item in trial.answers if not item.told]
            if not seconds:
                break
            levels.append(level_of(at_once, seconds, trial.wall_seconds))
        return levels

    def _replicas(self) -> list[Told]:
        found = cast("Told", self._client.get(f"/admin/models/{self._spec.model_id}"))
        return [item for item in cast("list[Told]", found["replicas"]) if item["ready_at"]]

    def _replicas_ready(self) -> int:
        return sum(item["state"] == "ready" for item in self._replicas())

    def _cold_start(self) -> float | None:
        replicas = sorted(self._replicas(), key=lambda item: str(item["ready_at"]))
        if not replicas:
            return None
        started, ready = (dt.datetime.fromisoformat(str(replicas[-1][name])) for name in ("started_at", "ready_at"))
        return (ready - started).total_seconds()

    def _left(self) -> float:
        return self._until - self._clock.monotonic()


def show(measured: Profile) -> None:
    """Print a profile for people."""
    cold = measured.cold_start_seconds
    say(f"{measured.model_id}{measured.endpoint}: a usual request takes {measured.usual_seconds:.3g} s")
    say(f"cold start: {'unknown, no replica is loaded' if cold is None else f'{cold:.3g} s'}")
    say(f"memory of its replica: {_bytes(measured.usual_memory_bytes, measured.usual_device_memory_bytes)}")
    rows = [
        (
            item.field,
            item.feature,
            " ".join(f"{value:g}: {seconds:.3g} s" for value, seconds in zip(item.values, item.seconds, strict=True)),
            "-" if item.exponent is None else f"to the power of {item.exponent:.2f}",
            " ".join(map(_bytes, item.memory_bytes, item.device_memory_bytes)) or "-",
        )
        for item in measured.growth
    ]
    print_table(
        ("field", "feature", "median", "grows", "memory"), rows, empty="no field of its input means more or less work"
    )
    most = max((item.per_second for item in measured.levels), default=1.0)
    shown = [
        (
            item.at_once,
            f"{item.per_second:.3g}",
            f"{item.seconds_p50:.3g}",
            f"{item.seconds_p95:.3g}",
            "#" * max(1, round(_BAR * item.per_second / most)),
            "best" if item.at_once == measured.best_at_once else "",
        )
        for item in measured.levels
    ]
    print_table(("at a time", "per second", "p50 s", "p95 s", "throughput", ""), shown, empty="no level was measured")
    if measured.stopped:
        say(f"not all was measured: {measured.stopped}")


def _bytes(host: int | None, device: int | None) -> str:
    """Return an amount of memory for people: of the host, and of devices where there are any."""
    shown = "unknown" if host is None else f"{host / 2**20:,.0f} MiB"
    return shown if device is None else f"{shown} and {device / 2**20:,.0f} MiB of devices"
