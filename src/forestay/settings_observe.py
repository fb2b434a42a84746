"""Settings of observing, and of what is asked of models before they get traffic. Part of the tree in `settings`."""

import dataclasses

from forestay.settings_fields import setting


@dataclasses.dataclass(frozen=True, slots=True)
class Observe:
    """What is kept of what happened, and who else is told."""

    telemetry: bool = setting(
        "FORESTAY_TELEMETRY",
        True,
        "false: gateways leave no line, metric or fact of a call. Only to measure what telling costs: SLOs and learning see nothing then; misuse is judged all the same.",
    )
    slo_file: str = setting(
        "FORESTAY_SLO_FILE",
        "",
        "A file of SLOs, or a folder of such files (.yaml, .yml), ours or OpenSLO v1; followed as it changes. Empty: models' own specs and the defaults.",
    )
    probe_tenants: str = setting(
        "FORESTAY_PROBE_TENANTS", "", "Tenants, separated by commas, whose calls are synthetic: told apart as probes."
    )
    otlp_endpoint: str = setting(
        "FORESTAY_OTLP_ENDPOINT",
        "",
        "Base URL of an OTLP/HTTP collector that is sent the spans of requests; empty: none.",
    )
    trace_ratio: float = setting(
        "FORESTAY_TRACE_RATIO", 1.0, "Share of requests recorded as traces, where a caller's own context does not say."
    )
    trace_service: str = setting("FORESTAY_TRACE_SERVICE", "forestay", "Name of this platform in traces: service.name.")
    log_drain_url: str = setting(
        "FORESTAY_LOG_DRAIN_URL",
        "",
        "Endpoint that every process sends its log lines to as well, in batches; empty: none.",
    )
    log_drain_format: str = setting("FORESTAY_LOG_DRAIN_FORMAT", "ndjson", "ndjson, or otlp for an OTLP/HTTP /v1/logs.")
    audit_ratio: float = setting(
        "FORESTAY_AUDIT_RATIO",
        0.01,
        "Share of released outputs of queued requests that people are asked to look at again (forestay safety audit).",
    )
    audit_seed: str = setting(
        "FORESTAY_AUDIT_SEED",
        "forestay",
        "Text that the sample is drawn by; another one is another sample. Keep it from whoever could profit by it.",
    )
    rollups_retention_seconds: float = setting(
        "FORESTAY_ROLLUPS_RETENTION", 400 * 86400.0, "How long roll-ups by minute are kept; whole months are dropped."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Quality:
    """How outputs are followed."""

    reference_outputs: int = setting(
        "FORESTAY_QUALITY_REFERENCE",
        400,
        "First outputs of a revision, by kind of medium, that later ones are held against.",
    )
    run_length_outputs: float = setting(
        "FORESTAY_QUALITY_RUN_LENGTH",
        10_000.0,
        "Outputs of one replica from false alarm to false alarm, on average; fewer: changes are seen earlier.",
    )
    outputs_retention_seconds: float = setting(
        "FORESTAY_QUALITY_RETENTION", 14 * 86400.0, "How long numbers of outputs, and findings, are kept."
    )
    scorers_file: str = setting(
        "FORESTAY_QUALITY_SCORERS",
        "",
        "YAML that names the scorers which specs may ask for; empty: none are run, and outputs go on without scores.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Artefacts:
    """What is asked of models before they are loaded, and before they get traffic."""

    require_signatures: bool = setting(
        "FORESTAY_REQUIRE_SIGNATURES", False, "Deploy and start only models whose weights a trusted key has signed."
    )
    require_readiness: bool = setting(
        "FORESTAY_REQUIRE_READINESS",
        False,
        "New models are open to their tenant's administrators alone until they are admitted, and no further revision "
        "gets traffic while its review fails; false: reviews tell, and close only what a spec asks for.",
    )
