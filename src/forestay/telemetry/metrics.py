"""Every metric that Forestay exports, declared once in one table, with bounded labels.

A metric is declared as a constant and used by that constant, so a name cannot be misspelt nor a label forgotten.
Labels that could take many values (models, routes asked for by strangers) are bounded: beyond `limit` distinct label
sets a metric counts under `other`. Never a label from a prompt, a key, or a request id. Called by every process.

A hot path notes what it counts and goes on; the notes are folded into series together, when somebody reads or a
thousand wait. That is a fifth of what the client library's own objects cost a call, and needs no lock in it.
"""

import bisect
import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString  # pyright: ignore[reportUnknownVariableType] - no types there

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
OTHER = "other"
FOLD_AT = 1_024  # notes that wait at most
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One row of the table; `limit` bounds the distinct label sets."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    limit: int = 500
    buckets: tuple[float, ...] = ()


_TABLE: list[Metric] = []


def _counter(name: str, doc: str, *labels: str, limit: int = 500) -> Metric:
    return _declare(Metric(name, "counter", doc, labels, limit))


def _gauge(name: str, doc: str, *labels: str, limit: int = 500) -> Metric:
    return _declare(Metric(name, "gauge", doc, labels, limit))


def _histogram(name: str, doc: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return _declare(Metric(name, "histogram", doc, labels, 200, buckets))


def _declare(metric: Metric) -> Metric:
    _TABLE.append(metric)
    return metric


# Gateway
HTTP_REQUESTS = _counter("forestay_http_requests_total", "Answers by route and status.", "route", "status")
HTTP_SECONDS = _histogram("forestay_http_seconds", "Time to the end of the answer.", "route", buckets=LONG_SECONDS)
REFUSED = _counter("forestay_refused_total", "Calls refused before anything was queued, by cause.", "cause")
AUDIT_TAMPERED = _gauge("forestay_audit_tampered", "1 when the audit log lost rows that were signed, else 0.")
MODELS_UNREADY = _gauge("forestay_models_unready", "Admitted models whose newest readiness review says no.")
SIGN_INS = _counter("forestay_sign_ins_total", "Tries of people to sign in, by way and outcome.", "way", "outcome")
UNHANDLED = _counter("forestay_unhandled_errors_total", "Answers 500 that are our own defect.", "route")
SUBMITTED = _counter("forestay_submitted_total", "Submits committed.", "model", "kind")
ADMISSIONS = _counter(
    "forestay_admissions_total", "Submits with a deadline, by what admission said.", "model", "decision"
)
SHED = _counter("forestay_shed_total", "Queued requests ended early, by why.", "cause")
UNDELIVERED = _counter("forestay_undelivered_submits_total", "Submits whose answer never reached their caller.")
STATUS_READS = _counter("forestay_status_reads_total", "Database reads made for statuses, by kind.", "kind")
STATUS_POLLS = _counter("forestay_status_polls_total", "Status polls, by how they were answered.", "how")
STATUS_WATCHED = _gauge("forestay_status_watched", "Requests whose status is held in memory.")
DIRECT_CALLS = _counter("forestay_direct_calls_total", "Calls in the direct lane.", "model", "lane", "outcome")
DIRECT_WAIT_SECONDS = _histogram("forestay_direct_wait_seconds", "Wait for a slot.", "model", buckets=LONG_SECONDS)
DIRECT_SLOTS = _gauge("forestay_direct_slots", "Slots leased by this gateway, by use.", "use")
FACTS_LOST = _counter(
    "forestay_facts_lost_total", "Facts of direct calls and minutes of polls dropped because none could be written."
)
CALLS_NOT_NOTED = _counter("forestay_calls_not_noted_total", "Calls that left no call fact, by why.", "why")
MEANINGS = _counter("forestay_call_meanings_total", "Prompts whose meaning was hashed, or left out.", "outcome")
TEXT_NOT_HASHED = _counter("forestay_call_text_not_hashed_total", "Calls noted without their text: too many waited.")
WAKEUPS_LOST = _counter("forestay_wakeups_lost_total", "Wake-ups that could not be sent or heard.", "channel")
GUARD_OPEN = _counter("forestay_guard_open_total", "Times a guard failed open, by guard.", "guard")
LIMITED = _counter(
    "forestay_limited_total", "Calls refused by a limit, by what it is for and what it counts.", "scope", "kind"
)
LIMIT_COUNTERS_AWAY = _gauge(
    "forestay_limit_counters_away", "1 while Valkey does not answer and this gateway counts alone."
)
LIMIT_SEEDS = _counter(
    "forestay_limit_seeds_total", "Times a month's spending was read from the database, by result.", "result"
)
USAGE_ROWS = _counter("forestay_usage_settled_total", "Requests whose usage was written, by lane.", "lane")

# Misuse
ABUSE_CALLS = _counter("forestay_abuse_calls_total", "Calls that the abuse loop has seen.")
ABUSE_DECIDED = _counter("forestay_abuse_decided_total", "Standings that rules asked for.", "rule", "effect")
ABUSE_LAG_SECONDS = _gauge("forestay_abuse_lag_seconds", "Age of the newest call that the abuse loop has seen.")
ABUSE_RULES_BROKEN = _counter("forestay_abuse_rules_broken_total", "Rules in force that could not be read.")

# Known pictures
HASH_MATCHES = _counter("forestay_hash_matches_total", "Contents near a known hash, by bank and hint.", "bank", "hint")
HASH_SUSPENDED = _counter(
    "forestay_hash_entries_suspended_total", "Entries that flood control kept from blocking: look at them."
)
HASH_REPORTS = _counter("forestay_hash_reports_total", "Steps of cases that the law asks to report, by step.", "step")

# What happened
ROLLUP_LAG_SECONDS = _gauge("forestay_rollup_lag_seconds", "Age of the last minute whose facts are rolled up whole.")
# Review
REVIEW_OPENED = _counter("forestay_review_opened_total", "Items that the guard opened for people, by point.", "point")
REVIEW_UNOPENED = _counter(
    "forestay_review_unopened_total", "Stopped contents for which no item could be opened, by why.", "why"
)
REVIEW_DECIDED = _counter(
    "forestay_review_decided_total", "Items decided by people, by point and outcome.", "point", "outcome"
)
REVIEW_CARRIED = _counter("forestay_review_carried_total", "Decisions carried out, by what was done.", "what")
REVIEW_WAITING = _gauge("forestay_review_waiting", "Items that wait for people.")
REVIEW_OLDEST_SECONDS = _gauge("forestay_review_oldest_seconds", "Age of the oldest item that waits.")
REVIEW_TOLD = _counter(
    "forestay_review_told_total", "Tries at telling FORESTAY_REVIEW_URL, by what followed.", "outcome"
)

LINES_DRAINED = _counter("forestay_log_lines_drained_total", "Log lines for the drain, by what became of them.", "fate")
SPANS = _counter("forestay_spans_total", "Spans of requests for the collector, by what came of them.", "outcome")

# The same under fal's public names, set by the controller (docs/howto/send-telemetry-elsewhere.md)
FAL_RUNNERS = _gauge(
    "fal_app_runners", "Replicas, by state and pool.", "application", "state", "machine_type", limit=2_000
)
FAL_GPU_COUNT = _gauge("fal_app_runner_gpu_count", "Devices that replicas hold.", "application")
FAL_QUEUE_SIZE = _gauge("fal_app_queue_size", "Waiting requests, a thousand at most.", "application")
FAL_CONCURRENT = _gauge("fal_app_concurrent_requests", "Queued requests that workers hold.", "application")
FAL_RECEIVED = _gauge("fal_app_requests_received", "Calls let in, last minute.", "application", "method")
FAL_COMPLETED = _gauge(
    "fal_app_requests_completed", "Requests ended, last minute.", "application", "method", "status", limit=2_000
)
FAL_LATENCY = _gauge(
    "fal_app_request_latency", "Requests ended within so many seconds, last minute.", "application", "le", limit=5_000
)

# Media and delivery
UPLOADED_BYTES = _counter("forestay_uploaded_bytes_total", "Bytes that callers uploaded.", "how")
DOWNLOADED_BYTES = _counter("forestay_downloaded_bytes_total", "Bytes of media sent out.")
WEBHOOK_TRIES = _counter("forestay_webhook_tries_total", "Tries at delivering a webhook, by what followed.", "outcome")
WEBHOOK_SECONDS = _histogram("forestay_webhook_seconds", "Duration of one try.", "outcome", buckets=LONG_SECONDS)
CONNECT_TUNNELS = _counter("forestay_connect_tunnels_total", "CONNECT calls to the client proxy, by answer.", "outcome")

# Worker
INPUTS = _counter(
    "forestay_inputs_total", "Files of inputs, by declared kind and what came of them.", "kind", "outcome"
)
BUCKET_FILES = _counter("forestay_bucket_files_total", "Output files sent to buckets of callers.", "outcome")
INPUT_SECONDS = _histogram(
    "forestay_input_seconds", "Time to fetch, open and clean one file.", "kind", buckets=_SHORT_SECONDS
)
ATTEMPTS = _counter("forestay_attempts_total", "Attempts ended on this worker.", "model", "outcome")
ATTEMPT_SECONDS = _histogram("forestay_attempt_seconds", "Time a slot was held.", "model", buckets=LONG_SECONDS)
SLOTS = _gauge("forestay_slots", "Slots of ready replicas, by use.", "use")
REPLICAS = _gauge("forestay_replicas", "Replicas on this worker.", "state")
REPLICA_ENDS = _counter("forestay_replica_ends_total", "Replicas that ended, by cause.", "model", "cause")
LEASES_LOST = _counter("forestay_leases_lost_total", "Leases that were taken away or ran out.", "cause")
WORKER_LOG_LINES = _counter("forestay_log_lines_total", "Lines that models wrote; some kept are withheld.", "fate")

# Outputs held against their contracts
OUTPUT_CHECKS = _counter(
    "forestay_output_checks_total",
    "Checks that an output did not pass: failed, or filtered by the model itself.",
    "model",
    "check",
    "standing",
    limit=2_000,
)
FINDINGS = _counter(
    "forestay_quality_findings_total",
    "What was found wrong with a model or a replica and was not known before.",
    "model",
    "source",
    limit=2_000,
)
FINDINGS_DROPPED = _counter(
    "forestay_quality_findings_dropped_total", "Findings that were dropped because they could not be stored in time."
)
CANARY_ROUNDS = _counter(
    "forestay_canary_rounds_total",
    "Rounds of golden canaries that a replica has played.",
    "model",
    "cause",
    "ended",
    limit=2_000,
)
CANARY_SECONDS = _counter(
    "forestay_canary_device_seconds_total", "Device-seconds that golden canaries have taken.", "model", limit=1_000
)
SCORES = _counter(
    "forestay_quality_scores_total",
    "Outputs that were offered to a scorer, by what became of them.",
    "scorer",
    "outcome",
    limit=500,
)
SCORER_FAILURES = _counter(
    "forestay_quality_scorer_failures_total", "Times that a scorer gave no scores, by cause.", "scorer", "trouble"
)
SCORER_SECONDS = _counter("forestay_quality_scorer_seconds_total", "Seconds that a scorer has worked.", "scorer")
OUTPUTS_UNCHECKED = _counter(
    "forestay_outputs_unchecked_total", "Files of outputs that could not be looked at, and went on.", "reason"
)
OUTPUTS_NOT_NOTED = _counter(
    "forestay_outputs_not_noted_total",
    "Files of outputs whose numbers were dropped before they were written.",
    "reason",
)
QUALITY_OUTPUTS = _counter("forestay_quality_outputs_total", "Outputs that the detectors of quality have taken.")
QUALITY_LAG_SECONDS = _gauge("forestay_quality_lag_seconds", "Age of the newest output that the detectors have taken.")
QUALITY_FINDINGS = _counter(
    "forestay_quality_changes_total", "Changes that the detectors of quality have found.", "what"
)
QUALITY_DECIDED = _counter(
    "forestay_quality_decided_total", "What the quality loop asked for, and what became of it.", "action", "effect"
)
OUTPUT_CHECK_SECONDS = _histogram(
    "forestay_output_check_seconds", "Time to hold one answer against its contract.", buckets=_SHORT_SECONDS
)

# Devices, read by their worker; a device is called by its UUID
DEVICE_MEMORY_BYTES = _gauge("forestay_device_memory_bytes", "Memory of a device: used, total.", "device", "what")
DEVICE_MODEL_MEMORY_BYTES = _gauge(
    "forestay_device_model_memory_bytes", "Memory of devices that the replicas of a model hold on this worker.", "model"
)
DEVICE_TEMPERATURE = _gauge("forestay_device_temperature_celsius", "Temperature of a device.", "device")
DEVICE_POWER_WATTS = _gauge("forestay_device_power_watts", "Power that a device draws.", "device")
DEVICE_BUSY_RATIO = _gauge("forestay_device_busy_ratio", "Share of the time that a device ran anything.", "device")
DEVICE_CLOCK_MHZ = _gauge("forestay_device_clock_megahertz", "Clocks of a device.", "device", "clock")
DEVICE_SLOWED = _gauge("forestay_device_slowed", "1 while clocks are held down, by why, else 0.", "device", "why")
DEVICE_ECC_ERRORS = _gauge("forestay_device_ecc_errors", "ECC errors of a device.", "device", "kind", "since")
DEVICE_ROWS_PENDING = _gauge("forestay_device_rows_pending", "1 while rows of memory wait to be replaced.", "device")
DEVICE_LOST = _gauge("forestay_device_lost", "1 while the driver does not reach a device.", "device")
DEVICE_XIDS = _counter("forestay_device_xids_total", "Errors (Xid) that the driver noted.", "device", "xid")

# Models' own files
ARTEFACT_FINDINGS = _counter(
    "forestay_artefact_findings_total", "Findings that refused a model's files, at import or load.", "kind", "where"
)
ARTEFACT_SECONDS = _histogram("forestay_artefact_seconds", "Check of a model's files at load.", buckets=LONG_SECONDS)

# The judge
JUDGE_ANSWERS = _counter(
    "forestay_judge_answers_total",
    "Pieces of content judged, by detector and what came of them.",
    "detector",
    "outcome",
)
JUDGE_SECONDS = _histogram(
    "forestay_judge_seconds", "Time to judge one piece of content.", "detector", buckets=_SHORT_SECONDS
)
JUDGE_WAITING = _gauge("forestay_judge_waiting", "Questions that wait for a detector.", "detector")
# The guard
VERDICTS = _counter("forestay_verdicts_total", "Judgements of content.", "model", "point", "verdict", limit=2_000)
VERDICT_SECONDS = _histogram("forestay_verdict_seconds", "Time of a judgement.", "point", buckets=_SHORT_SECONDS)
VERDICTS_UNWRITTEN = _counter(
    "forestay_verdicts_unwritten_total",
    "Verdict records that could not be written: of outputs (`refused`, nothing released), of inputs (`dropped`).",
    "what",
)
PIECES_WITHHELD = _counter("forestay_pieces_withheld_total", "Events and frames that were not passed on.", "model")
STAMPED = _counter("forestay_stamped_total", "Files given provenance: whole, partly, failed.", "outcome")
SHADOWS_DROPPED = _counter("forestay_shadow_verdicts_dropped_total", "Judgements that a candidate policy still owed.")

# Error budgets, set by the controller that watches them
SLO_EVIDENCE = _gauge(
    "forestay_slo_evidence_ratio",
    "Evidence that an SLO burns, as a share of what opens a page or a ticket; 1 is sure.",
    "slo",
    "severity",
    limit=20_000,
)
SLO_BUDGET_LEFT = _gauge(
    "forestay_slo_budget_left_ratio", "Share of the error budget that is left; below 0 overdrawn.", "slo", limit=10_000
)
SLO_BURN_RATE = _gauge(
    "forestay_slo_burn_rate", "How fast the budget burns over the last hour; 1 spends just all.", "slo", limit=10_000
)
SLO_FILES_BROKEN = _gauge(
    "forestay_slo_files_broken", "Files of SLOs that cannot be read; what was last read of each still holds."
)
# Alerts
ALERTS_OPEN = _gauge("forestay_alerts_open", "Alerts that fire, by severity.", "severity")
ALERT_ACTIONS = _counter("forestay_alert_actions_total", "What was decided about alerts.", "what")
ALERT_SOURCE_FAILURES = _counter(
    "forestay_alert_source_failures_total", "Times that a source of alerts could not be asked.", "source", limit=50
)
NOTIFICATION_TRIES = _counter(
    "forestay_notification_tries_total", "Tries at telling a receiver, by what followed.", "receiver", "outcome"
)
NOTIFICATION_SECONDS = _histogram(
    "forestay_notification_seconds", "Duration of one try at telling.", "outcome", buckets=_SHORT_SECONDS
)
DEADMAN = _counter(
    "forestay_deadman_total", "Beats of the dead-man's switch: heard, unheard, kept (alerting did not work).", "outcome"
)

# Every process
LOOP_FAILURES = _counter("forestay_loop_failures_total", "Loop runs that ended in an error.", "loop")
LOOP_RUNS = _counter("forestay_loop_runs_total", "Loop runs.", "loop")
LOOP_SECONDS = _histogram("forestay_loop_seconds", "Duration of a loop run.", "loop", buckets=_SHORT_SECONDS)


@dataclasses.dataclass(slots=True)
class _Distribution:
    """One histogram's series: values by the first bound that holds them, the last place for those above all bounds."""

    counts: list[int]
    total: float = 0.0


class Metrics(Collector):
    """One process's registry; `add`, `set` and `observe` take label values in the order of the table.

    A silent one takes everything and keeps nothing. Threads may share it.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._noted: deque[tuple[Metric, Labels, float]] = deque()  # appending is atomic
        self._folding = threading.Lock()  # guards what follows
        self._values: dict[Metric, dict[Labels, float]] = {}  # of counters and gauges
        self._distributions: dict[Metric, dict[Labels, _Distribution]] = {}
        self.registry.register(self)

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter or a gauge."""
        if self._silent:
            return
        if metric.kind == "histogram":
            raise TypeError(f"{metric.name} is a histogram; use observe")
        if amount < 0 and metric.kind == "counter":
            raise ValueError(f"{metric.name} is a counter: it does not go back by {-amount}")
        if len(labels) != len(metric.labels):
            _check(metric, labels)
        self._noted.append((metric, labels, amount))
        if len(self._noted) >= FOLD_AT:
            self._fold_some()

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        if self._silent:
            return
        if metric.kind != "gauge":
            raise TypeError(f"{metric.name} is no gauge")
        _check(metric, labels)
        with self._folding:
            self._fold()
            series = self._values.setdefault(metric, {})
            series[_bounded(metric, series, labels)] = float(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put one value into a histogram."""
        if self._silent:
            return
        if metric.kind != "histogram":
            raise TypeError(f"{metric.name} is no histogram")
        if len(labels) != len(metric.labels):
            _check(metric, labels)
        self._noted.append((metric, labels, value))
        if len(self._noted) >= FOLD_AT:
            self._fold_some()

    def replace(self, metric: Metric, values: Mapping[Labels, float]) -> None:
        """Set a gauge anew: label sets that are not among these are gone."""
        with self._folding:
            self._fold()
            if metric.labels:
                self._values.pop(metric, None)
        for labels, value in values.items():
            self.set(metric, value, *labels)

    def value(self, metric: Metric, *labels: str) -> float:
        """Return the current value of a counter or gauge, for tests and benches."""
        _check(metric, labels)
        with self._folding:
            self._fold()
            return self._values.get(metric, {}).get(labels, 0.0)

    def exposition(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Family]:
        """Return every series, as the client library asks for them."""
        with self._folding:
            self._fold()
            families = [
                *(_family(metric, series) for metric, series in self._values.items()),
                *(_histogram_family(metric, series) for metric, series in self._distributions.items()),
            ]
        yield from families

    def _fold_some(self) -> None:
        """Fold, unless another thread is at it."""
        if self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def _fold(self) -> None:
        """Fold what was noted so far into the series; whoever calls holds the lock."""
        noted = self._noted
        for _ in range(len(noted)):
            metric, labels, amount = noted.popleft()
            if metric.kind == "histogram":
                self._put(metric, labels, amount)
                continue
            series = self._values.get(metric)
            if series is None:
                series = self._values[metric] = {}
            known = series.get(labels)
            if known is None:
                labels = _bounded(metric, series, labels)
                known = series.get(labels, 0.0)
            series[labels] = known + amount

    def _put(self, metric: Metric, labels: Labels, value: float) -> None:
        series = self._distributions.setdefault(metric, {})
        found = series.get(labels)
        if found is None:
            labels = _bounded(metric, series, labels)
            found = series.setdefault(labels, _Distribution([0] * (len(metric.buckets) + 1)))
        found.counts[bisect.bisect_left(metric.buckets, value)] += 1
        found.total += value


def _check(metric: Metric, labels: Labels) -> None:
    if len(labels) != len(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, not {len(labels)} of them")


def _bounded(metric: Metric, series: Mapping[Labels, object], labels: Labels) -> Labels:
    """Return the labels, or `other` for each where the metric has as many label sets as it may have."""
    full = bool(labels) and labels not in series and len(series) >= metric.limit
    return (OTHER,) * len(labels) if full else labels


def _family(metric: Metric, series: Mapping[Labels, float]) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.doc, labels=metric.labels)
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _histogram_family(metric: Metric, series: Mapping[Labels, _Distribution]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.doc, labels=metric.labels)
    bounds = [floatToGoString(bound) for bound in (*metric.buckets, float("inf"))]
    for labels, found in series.items():
        family.add_metric(labels, list(zip(bounds, itertools.accumulate(found.counts), strict=True)), found.total)
    return family


def table() -> tuple[Metric, ...]:
    """Return every declared metric, for the reference page."""
    return tuple(_TABLE)
