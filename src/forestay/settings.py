"""The one frozen tree of settings, read from the environment once at start; no other module reads it.

Every field says its environment variable, unit, default and consequence in place; `docs/reference/settings.md` is
generated from this file. Empty text means "not set".
"""

import dataclasses
import os
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

from forestay.errors import UsageError
from forestay.settings_fields import number_fault, setting
from forestay.settings_observe import Artefacts, Observe, Quality


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """Where state lives."""

    database_url: str = setting("FORESTAY_DATABASE_URL", "", "Postgres 15 or newer, the one source of truth.")
    facts_url: str = setting("FORESTAY_FACTS_URL", "", "Postgres for facts; empty puts them into the database above.")
    valkey_url: str = setting("FORESTAY_VALKEY_URL", "", "Valkey for wake-ups; without it everything polls.")
    object_store: str = setting(
        "FORESTAY_OBJECT_STORE", "", "file:///folder, s3://, gs:// or az://: media, large bodies, model bundles."
    )
    pool_size: int = setting("FORESTAY_DATABASE_POOL_SIZE", 8, "Connections per process.")
    statement_timeout_seconds: float = setting(
        "FORESTAY_STATEMENT_TIMEOUT", 15.0, "Seconds after which Postgres ends a statement of ours."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Queue:
    """How the durable queue behaves."""

    cell: int = setting("FORESTAY_CELL", 0, "0..4095: which deployment this is; named inside every request id.")
    lease_seconds: float = setting(
        "FORESTAY_LEASE_SECONDS", 15.0, "A dead worker's requests wait at most this long before they are queued again."
    )
    max_attempts: int = setting("FORESTAY_MAX_ATTEMPTS", 10, "Ceiling of attempts per request, fal's own.")
    poison_replicas: int = setting(
        "FORESTAY_POISON_REPLICAS", 2, "Distinct replicas a request may crash before it is failed for good."
    )
    retry_base_seconds: float = setting("FORESTAY_RETRY_BASE", 0.5, "First back-off; doubles each time.")
    retry_cap_seconds: float = setting("FORESTAY_RETRY_CAP", 30.0, "Longest back-off.")
    starvation_bound_seconds: float = setting(
        "FORESTAY_STARVATION_BOUND",
        60.0,
        "A low request is overtaken only by normal ones submitted less than this later.",
    )
    patience_seconds: float = setting(
        "FORESTAY_PATIENCE",
        3600.0,
        "Among one tenant's requests, one without a start deadline takes its turn as if it had to start after this.",
    )
    group_commit_seconds: float = setting(
        "FORESTAY_GROUP_COMMIT", 0.002, "Longest time a submit waits for others to share its commit."
    )
    submit_patience_seconds: float = setting(
        "FORESTAY_SUBMIT_PATIENCE",
        5.0,
        "How long a submit waits for a database that is away, as in a restart, before it is answered 503.",
    )
    poll_seconds: float = setting("FORESTAY_POLL", 0.5, "How often an idle worker looks without being woken.")
    retention_seconds: float = setting("FORESTAY_RETENTION", 7 * 86400.0, "How long results, logs and bodies are kept.")
    facts_retention_seconds: float = setting(
        "FORESTAY_FACTS_RETENTION", 90 * 86400.0, "How long facts are kept; whole days are dropped."
    )
    call_facts_retention_seconds: float = setting(
        "FORESTAY_CALL_FACTS_RETENTION",
        30 * 86400.0,
        "How long facts of calls (hashes, truncated networks) are kept for judging misuse; whole days are dropped.",
    )
    adoption_seconds: float = setting(
        "FORESTAY_ADOPTION_WINDOW", 60.0, "How long a submit whose answer was lost may be adopted by its retry."
    )
    inline_body_bytes: int = setting(
        "FORESTAY_INLINE_BODY", 65_536, "Bodies above this many bytes go to the object store."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """The way in."""

    host: str = setting("FORESTAY_HOST", "127.0.0.1", "Address to bind.")
    port: int = setting("FORESTAY_PORT", 8080, "Plain HTTP port; 0 picks a free one.")
    tls_port: int = setting("FORESTAY_TLS_PORT", 0, "TLS port; 0 picks a free one, -1 disables TLS.")
    connect_port: int = setting("FORESTAY_CONNECT_PORT", 0, "CONNECT proxy port; 0 picks a free one, -1 disables it.")
    run_port: int = setting(
        "FORESTAY_RUN_PORT", -1, "Port that answers as fal.run, without a prefix (plain HTTP); -1 disables it."
    )
    queue_port: int = setting(
        "FORESTAY_QUEUE_PORT", -1, "Port that answers as queue.fal.run, without a prefix (plain HTTP); -1 disables it."
    )
    metrics_port: int = setting("FORESTAY_METRICS_PORT", 0, "Prometheus port of a process; 0 picks a free one.")
    tls_dir: str = setting("FORESTAY_TLS_DIR", "", "Folder with ca.pem, server.pem and server-key.pem.")
    public_url: str = setting(
        "FORESTAY_PUBLIC_URL", "", "Base of the URLs in answers; empty derives it from each request's Host header."
    )
    max_body_bytes: int = setting("FORESTAY_MAX_BODY", 10 * 1024 * 1024, "Largest JSON body in bytes; beyond: 413.")
    max_upload_bytes: int = setting("FORESTAY_MAX_UPLOAD", 512 * 1024 * 1024, "Largest upload in bytes; beyond: 413.")
    max_header_bytes: int = setting("FORESTAY_MAX_HEADERS", 32 * 1024, "Largest sum of request headers; beyond: 431.")
    body_timeout_seconds: float = setting(
        "FORESTAY_BODY_TIMEOUT", 30.0, "A client slower than this between two pieces of a body is answered 408."
    )
    status_hold_seconds: float = setting(
        "FORESTAY_STATUS_HOLD", 1.0, "A status poll with nothing new may be held this long; 0 answers at once."
    )
    status_refresh_seconds: float = setting(
        "FORESTAY_STATUS_REFRESH", 0.25, "Longest age of a status served from memory."
    )
    run_timeout_seconds: float = setting(
        "FORESTAY_RUN_TIMEOUT", 3600.0, "Ceiling for a synchronous call, waiting for a replica included."
    )
    direct_limit: int = setting(
        "FORESTAY_DIRECT_LIMIT", 200, "Direct calls that one tenant may have in flight at one gateway; beyond: 429."
    )
    throttled_rate: float = setting(
        "FORESTAY_THROTTLED_RATE",
        1.0,
        "Calls a second that a throttled caller may make at one gateway, times its standing's factor; beyond: 429.",
    )
    guesses: int = setting(
        "FORESTAY_GUESSES",
        20,
        "Distinct wrong credentials that one address may show a gateway; beyond: 429 for what is not proven there. 0: any.",
    )
    guess_pause_seconds: float = setting(
        "FORESTAY_GUESS_PAUSE", 30.0, "Seconds until an address that guessed may try one more credential."
    )
    meanings_per_second: float = setting(
        "FORESTAY_MEANINGS_PER_SECOND",
        0.0,
        "Prompts a second whose meaning a gateway hashes for judging misuse, in a child process of 260 MB, about 10 ms of a core each; needs the extra `embeddings`. 0: none.",
    )
    upload_lifetime_seconds: int = setting(
        "FORESTAY_UPLOAD_LIFETIME", 7 * 86400, "How long uploaded files are kept unless the caller asks otherwise."
    )
    trusted_proxies: str = setting(
        "FORESTAY_TRUSTED_PROXIES",
        "",
        "CIDRs of proxies before the gateway whose X-Forwarded-For is believed; empty: none, callers are who connects.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """The process beside the devices."""

    worker_id: str = setting("FORESTAY_WORKER_ID", "", "Name, unique and stable across restarts; empty: host and slot.")
    pool: str = setting("FORESTAY_POOL", "cpu", "Pool that this worker belongs to.")
    devices: int = setting("FORESTAY_DEVICES", 1, "Devices (GPUs or CPU slots) that this worker owns.")
    device_name: str = setting(
        "FORESTAY_DEVICE_NAME",
        "",
        "What facts call this worker's devices where it hands out no GPU, which has its UUID; empty: the worker's name.",
    )
    memory_mb: int = setting("FORESTAY_WORKER_MEMORY_MB", 0, "Memory for replicas; 0 means the machine's, shared out.")
    host: str = setting("FORESTAY_WORKER_HOST", "127.0.0.1", "Address on which gateways reach this worker.")
    port: int = setting("FORESTAY_WORKER_PORT", 0, "Port for gateways; 0 picks a free one.")
    work_dir: str = setting("FORESTAY_WORK_DIR", "", "Folder for unpacked bundles, environments and sockets.")
    secrets_dir: str = setting("FORESTAY_SECRETS_DIR", "", "Folder with one file per secret that specs may name.")
    drain_seconds: float = setting(
        "FORESTAY_DRAIN", 10.0, "At SIGTERM running requests may take this long to end; the rest is queued again, free."
    )
    start_backoff_seconds: float = setting(
        "FORESTAY_START_BACKOFF", 30.0, "Wait added per failed start of a model before the next try, fal's own."
    )
    start_backoff_cap_seconds: float = setting("FORESTAY_START_BACKOFF_CAP", 600.0, "Longest wait between starts.")
    health_seconds: float = setting("FORESTAY_HEALTH", 15.0, "How often a model with a regular health check is asked.")
    report_seconds: float = setting("FORESTAY_REPORT", 1.0, "How often a worker tells the fleet that it is there.")
    cancel_poll_seconds: float = setting(
        "FORESTAY_CANCEL_POLL", 0.5, "Longest time until a worker learns of a cancel when wake-ups are lost."
    )
    allow_unisolated: bool = setting(
        "FORESTAY_ALLOW_UNISOLATED",
        False,
        "Start models even where this machine cannot keep them from the network or give them a user of their own.",
    )
    drills: bool = setting("FORESTAY_DRILLS", False, "Let operators put faults into this worker's models: game days.")
    allow_private_inputs: bool = setting(
        "FORESTAY_ALLOW_PRIVATE_INPUTS", False, "Fetch media inputs from loopback and private networks too."
    )
    max_media_bytes: int = setting(
        "FORESTAY_MAX_MEDIA", 512 * 1024 * 1024, "Largest file in bytes that a model may hand over."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Ingress:
    """Files that callers name or send as inputs: how they are fetched and how much of them is opened."""

    max_bytes: int = setting(
        "FORESTAY_INPUT_BYTES",
        64 * 1024 * 1024,
        "Files of one request, all together, in bytes; a model gets them inline.",
    )
    max_files: int = setting("FORESTAY_INPUT_FILES", 32, "Files of one request.")
    total_seconds: float = setting(
        "FORESTAY_INPUT_TIMEOUT", 120.0, "Seconds in which all files of a request must have come and been opened."
    )
    fetch_seconds: float = setting("FORESTAY_FETCH_TIMEOUT", 60.0, "Seconds for one file, its redirects included.")
    connect_seconds: float = setting(
        "FORESTAY_FETCH_CONNECT", 5.0, "Seconds in which a file's server must take the call."
    )
    max_redirects: int = setting("FORESTAY_FETCH_REDIRECTS", 3, "Redirects that are followed for one file.")
    refuse_undeclared_urls: bool = setting(
        "FORESTAY_REFUSE_UNDECLARED_URLS", False, "Refuse (422) a URL in an input field that the spec does not declare."
    )
    decoders: int = setting("FORESTAY_DECODERS", 2, "Files that one worker opens at a time; each takes a processor.")
    decode_memory_mb: int = setting(
        "FORESTAY_DECODE_MEMORY_MB", 420, "Memory of the child that opens one file, in MB of 1024 * 1024 bytes."
    )
    decode_seconds: float = setting("FORESTAY_DECODE_TIMEOUT", 10.0, "Seconds in which one file must be opened.")
    max_pixels: int = setting("FORESTAY_MEDIA_PIXELS", 50_000_000, "Pixels of one picture, frame or page.")
    max_side: int = setting("FORESTAY_MEDIA_SIDE", 16_384, "Longest side of a picture or film, in pixels.")
    max_frames: int = setting("FORESTAY_MEDIA_FRAMES", 1_000, "Frames of an animated picture.")
    max_pages: int = setting("FORESTAY_MEDIA_PAGES", 64, "Pages of a TIFF.")
    max_total_pixels: int = setting(
        "FORESTAY_MEDIA_TOTAL_PIXELS", 500_000_000, "Pixels of all frames or pages of a picture; of a JPEG all scans."
    )
    max_seconds: float = setting("FORESTAY_MEDIA_SECONDS", 600.0, "Seconds that a film or a recording may play.")
    max_streams: int = setting("FORESTAY_MEDIA_STREAMS", 8, "Tracks of a film.")
    max_frame_rate: float = setting("FORESTAY_MEDIA_FRAME_RATE", 240.0, "Frames a second of a film, on average.")
    max_sample_rate: int = setting("FORESTAY_MEDIA_SAMPLE_RATE", 192_000, "Samples a second of sound, each channel.")
    max_channels: int = setting("FORESTAY_MEDIA_CHANNELS", 8, "Channels of sound.")


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """What goes to callers: webhooks, and files into buckets of their own."""

    allow_private_webhooks: bool = setting(
        "FORESTAY_ALLOW_PRIVATE_WEBHOOKS", False, "Allow webhook targets on loopback and private networks."
    )
    webhook_tries: int = setting("FORESTAY_WEBHOOK_TRIES", 31, "Deliveries tried before a webhook is dead-lettered.")
    first_timeout_seconds: float = setting(
        "FORESTAY_WEBHOOK_TIMEOUT", 15.0, "Time-out of the first delivery; later 120."
    )
    retry_base_seconds: float = setting(
        "FORESTAY_WEBHOOK_RETRY_BASE", 1.0, "First webhook back-off; doubles each time."
    )
    retry_cap_seconds: float = setting("FORESTAY_WEBHOOK_RETRY_CAP", 300.0, "Longest webhook back-off.")
    allow_private_buckets: bool = setting(
        "FORESTAY_ALLOW_PRIVATE_BUCKETS",
        False,
        "Allow buckets of callers (`X-App-Fal-Upload-Policy`) on loopback and private networks, and without TLS.",
    )
    bucket_timeout_seconds: float = setting(
        "FORESTAY_BUCKET_TIMEOUT", 120.0, "Seconds in which a caller's bucket must have taken a file, retries included."
    )
    bucket_tries: int = setting("FORESTAY_BUCKET_TRIES", 3, "Times that a file is sent to a caller's bucket.")


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may ask for where no rule says otherwise, and how it is counted."""

    default_requests_per_second: float = setting(
        "FORESTAY_DEFAULT_REQUESTS_PER_SECOND", 0.0, "Of each tenant without a rule of its own; 0: no limit."
    )
    default_burst: int = setting(
        "FORESTAY_DEFAULT_BURST", 0, "Requests of a tenant that may come at once; 0: what a second allows."
    )
    default_in_flight: int = setting(
        "FORESTAY_DEFAULT_IN_FLIGHT",
        0,
        "Calls of each tenant at a time, over all gateways; 0: FORESTAY_DIRECT_LIMIT alone holds, a gateway each.",
    )
    default_gpu_seconds_per_minute: float = setting(
        "FORESTAY_DEFAULT_GPU_SECONDS_PER_MINUTE", 0.0, "Device-seconds of each tenant; 0: no limit."
    )
    default_gpu_seconds_per_month: float = setting(
        "FORESTAY_DEFAULT_GPU_SECONDS_PER_MONTH", 0.0, "Device-seconds of each tenant and calendar month; 0: no limit."
    )
    default_money_per_month: float = setting(
        "FORESTAY_DEFAULT_MONEY_PER_MONTH", 0.0, "Currency units of each tenant and calendar month; 0: no limit."
    )
    price_per_device_second: float = setting(
        "FORESTAY_PRICE_PER_DEVICE_SECOND",
        0.0,
        "Currency units, for models whose spec names no `capacity.price_per_gpu_second`.",
    )
    counter_timeout_ms: int = setting(
        "FORESTAY_LIMIT_TIMEOUT_MS", 250, "A Valkey silent for longer is counted without, at this gateway's share."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Judge:
    """The process that holds the detectors of content; one on each host."""

    mode: str = setting(
        "FORESTAY_JUDGE", "auto", "auto, on or off: whether `up` runs one; auto: where the extra `safety` is installed."
    )
    socket: str = setting("FORESTAY_JUDGE_SOCKET", "", "Its unix socket; `up` puts it into the data folder.")
    memory_mb: int = setting(
        "FORESTAY_JUDGE_MEMORY_MB", 1536, "Its memory, in MB of 1024 * 1024 bytes; beyond, a check is a crash."
    )
    held_mb: int = setting(
        "FORESTAY_JUDGE_HELD_MB", 256, "Content that may wait to be judged, in MB; beyond, a check is an overload."
    )
    queue: int = setting(
        "FORESTAY_JUDGE_QUEUE", 256, "Questions that may wait for one detector; beyond, a check is an overload."
    )
    hang_seconds: float = setting(
        "FORESTAY_JUDGE_HANG", 10.0, "A detector that works on one thing for longer ends the judge; `up` restarts it."
    )
    markers: bool = setting(
        "FORESTAY_SAFETY_MARKERS", False, "Load the detector of drawn marker tokens: for demonstrations and tests only."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Secrets:
    """Keys of the platform itself; never logged, never given to model code."""

    internal_key: str = setting("FORESTAY_INTERNAL_KEY", "", "Shared by gateways and workers to prove themselves.")
    signing_key_file: str = setting("FORESTAY_SIGNING_KEY_FILE", "", "Ed25519 private key (PEM) that signs webhooks.")
    token_key: str = setting("FORESTAY_TOKEN_KEY", "", "Signs short-lived tokens of callers and sign-ins by OIDC.")
    key_pepper: str = setting(
        "FORESTAY_KEY_PEPPER",
        "",
        "Keys' secrets are hashed under it, 32 random characters or more, the same on every gateway; "
        "without it no key is issued, and losing it ends every key.",
    )
    old_key_peppers: str = setting(
        "FORESTAY_OLD_KEY_PEPPERS",
        "",
        "Peppers used before, separated by spaces: keys made under them go on working, and move to the new one when used.",
    )
    seal_key: str = setting(
        "FORESTAY_SEAL_KEY",
        "",
        "Content that people review is sealed under it, the same on every process; empty: under FORESTAY_INTERNAL_KEY.",
    )
    old_seal_keys: str = setting(
        "FORESTAY_OLD_SEAL_KEYS",
        "",
        "Sealing keys used before, separated by spaces: copies sealed under them can still be read.",
    )
    log_drain_secret: str = setting(
        "FORESTAY_LOG_DRAIN_SECRET", "", "Signs batches of log lines, 64 characters or more; empty: unsigned."
    )
    otlp_headers: str = setting(
        "FORESTAY_OTLP_HEADERS",
        "",
        "Headers for FORESTAY_OTLP_ENDPOINT, name=value,name=value: a collector's key, say.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """How people sign in to the admin API."""

    session_seconds: float = setting("FORESTAY_SESSION_SECONDS", 12 * 3600.0, "A session ends this long after sign-in.")
    session_idle_seconds: float = setting("FORESTAY_SESSION_IDLE", 2 * 3600.0, "A session unused for so long ends.")
    oidc_issuer: str = setting(
        "FORESTAY_OIDC_ISSUER", "", "Issuer URL of the OpenID provider that vouches for people; empty: passwords only."
    )
    oidc_client_id: str = setting("FORESTAY_OIDC_CLIENT_ID", "", "What the provider calls this platform.")
    oidc_client_secret: str = setting(
        "FORESTAY_OIDC_CLIENT_SECRET", "", "The platform's secret at the provider; empty: a public client (PKCE only)."
    )
    oidc_scopes: str = setting("FORESTAY_OIDC_SCOPES", "openid email", "Scopes asked for, separated by spaces.")
    oidc_role_claim: str = setting(
        "FORESTAY_OIDC_ROLE_CLAIM", "groups", "Claim of the ID token that names groups (a text or a list of texts)."
    )
    oidc_role_map: str = setting(
        "FORESTAY_OIDC_ROLE_MAP",
        "",
        "Groups to roles: `group=role`, separated by commas; the strongest counts; `*=viewer` lets everyone in. "
        "Whoever has none is refused.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Safety:
    """How content is judged."""

    patience_seconds: float = setting(
        "FORESTAY_JUDGE_PATIENCE",
        15.0,
        "How long a worker judges an output again and again while detectors are down, before it is withheld.",
    )
    verdicts_retention_seconds: float = setting(
        "FORESTAY_VERDICTS_RETENTION", 365 * 86400.0, "How long verdict records are kept; whole days are dropped."
    )
    providers_file: str = setting(
        "FORESTAY_SAFETY_PROVIDERS", "", "YAML that names detectors behind HTTP; empty: none but those of the judge."
    )
    report_url: str = setting(
        "FORESTAY_REPORT_URL", "", "Who is told of matches that the law asks to report; empty: cases wait, preserved."
    )
    report_tries: int = setting(
        "FORESTAY_REPORT_TRIES", 20, "Tries at telling the receiver before a case waits for a person."
    )
    report_media: bool = setting(
        "FORESTAY_REPORT_MEDIA", False, "Send the preserved copy along with the report; only where the law asks for it."
    )
    sealed_retention_seconds: float = setting(
        "FORESTAY_SEALED_RETENTION",
        30 * 86400.0,
        "How long sealed copies of refused inputs and stopped outputs are kept for reviews and appeals, and of outputs as evidence of findings; 0: none is made. "
        "What the law asks to report is kept until somebody lets it go.",
    )
    refused_kept: int = setting(
        "FORESTAY_REFUSED_KEPT",
        1000,
        "Refused inputs of one key that wait at a time without an appeal; beyond, they are counted and not kept.",
    )
    fingerprints_retention_seconds: float = setting(
        "FORESTAY_FINGERPRINTS_RETENTION",
        365 * 86400.0,
        "How long it is known how something looks that was released: for `forestay safety made-by-us`.",
    )
    review_claim_seconds: float = setting(
        "FORESTAY_REVIEW_CLAIM", 900.0, "How long an item is one reviewer's before others may take it."
    )
    review_url: str = setting(
        "FORESTAY_REVIEW_URL",
        "",
        "Who is told of items, appeals and decisions, signed like webhooks and without content; empty: nobody.",
    )
    review_tries: int = setting("FORESTAY_REVIEW_TRIES", 20, "Tries at telling one of them before it is a dead letter.")
    provenance_dir: str = setting(
        "FORESTAY_PROVENANCE_DIR",
        "",
        "Folder with chain.pem and key.pem (ES256) that sign manifests, made there if absent; empty: no manifests.",
    )
    watermark_key: str = setting(
        "FORESTAY_WATERMARK_KEY", "", "Secret under which watermarks are written and read; empty: no watermarks."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Alerts:
    """What is worth telling people, and how they are told."""

    routes_file: str = setting(
        "FORESTAY_ALERT_ROUTES", "", "YAML with receivers and routes; empty: alerts are kept and told to nobody."
    )
    beat_seconds: float = setting("FORESTAY_ALERT_BEAT", 5.0, "How often sources are asked and alerts are decided.")
    timeout_seconds: float = setting("FORESTAY_ALERT_TIMEOUT", 10.0, "Seconds in which a receiver must answer.")
    tries: int = setting(
        "FORESTAY_ALERT_TRIES", 20, "Tries at a notification before it is given up, which is an alert of its own."
    )
    retry_base_seconds: float = setting("FORESTAY_ALERT_RETRY_BASE", 1.0, "First back-off; doubles each time.")
    retry_cap_seconds: float = setting("FORESTAY_ALERT_RETRY_CAP", 120.0, "Longest back-off.")
    retention_seconds: float = setting(
        "FORESTAY_ALERT_RETENTION", 90 * 86400.0, "How long alerts that are over, and what was told of them, are kept."
    )
    queue_age_seconds: float = setting(
        "FORESTAY_ALERT_QUEUE_AGE",
        600.0,
        "A request that waits for so long is a ticket, for three times so long a page.",
    )
    worker_silent_seconds: float = setting(
        "FORESTAY_ALERT_WORKER_SILENT", 30.0, "A worker silent for so long counts as lost."
    )
    runbook_base: str = setting(
        "FORESTAY_RUNBOOK_BASE", "", "Put before the path of a runbook in notifications, such as https://docs.example/."
    )
    deadman_url: str = setting(
        "FORESTAY_DEADMAN_URL", "", "A watcher outside, told by POST while alerting works; empty: nobody is told."
    )
    deadman_seconds: float = setting("FORESTAY_DEADMAN_BEAT", 60.0, "How often the watcher outside is told.")


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """How commands find a running platform."""

    url: str = setting("FORESTAY_URL", "", "Base URL of the platform; empty: the saved profile.")
    key: str = setting("FORESTAY_KEY", "", "ADMIN key, `id:secret`; empty: the saved profile.")
    ca_file: str = setting("FORESTAY_CA_FILE", "", "Certificate authority to trust for an https URL.")
    profile_file: str = setting(
        "FORESTAY_PROFILE", "", "Where the profile is kept; empty: ~/.config/forestay/profile.json."
    )
    timeout_seconds: float = setting("FORESTAY_CLIENT_TIMEOUT", 30.0, "Longest wait of a command for one answer.")
    debug: bool = setting("FORESTAY_DEBUG", False, "Show the traceback of an error instead of one line.")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything, by domain."""

    storage: Storage = dataclasses.field(default_factory=Storage)
    queue: Queue = dataclasses.field(default_factory=Queue)
    gateway: Gateway = dataclasses.field(default_factory=Gateway)
    worker: Worker = dataclasses.field(default_factory=Worker)
    ingress: Ingress = dataclasses.field(default_factory=Ingress)
    delivery: Delivery = dataclasses.field(default_factory=Delivery)
    limits: Limits = dataclasses.field(default_factory=Limits)
    artefacts: Artefacts = dataclasses.field(default_factory=Artefacts)
    judge: Judge = dataclasses.field(default_factory=Judge)
    secrets: Secrets = dataclasses.field(default_factory=Secrets)
    identity: Identity = dataclasses.field(default_factory=Identity)
    safety: Safety = dataclasses.field(default_factory=Safety)
    observe: Observe = dataclasses.field(default_factory=Observe)
    alerts: Alerts = dataclasses.field(default_factory=Alerts)
    quality: Quality = dataclasses.field(default_factory=Quality)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read every variable; a value that does not parse raises UsageError naming the variable and the form."""
        return cls(
            storage=_read(Storage, environment),
            queue=_read(Queue, environment),
            gateway=_read(Gateway, environment),
            worker=_read(Worker, environment),
            ingress=_read(Ingress, environment),
            delivery=_read(Delivery, environment),
            limits=_read(Limits, environment),
            artefacts=_read(Artefacts, environment),
            judge=_read(Judge, environment),
            secrets=_read(Secrets, environment),
            identity=_read(Identity, environment),
            safety=_read(Safety, environment),
            observe=_read(Observe, environment),
            alerts=_read(Alerts, environment),
            quality=_read(Quality, environment),
        )


def process_environment() -> dict[str, str]:
    """Return a copy of this process's environment: for reading settings at start and for child processes."""
    return dict(os.environ)  # noqa: TID251 - the one door


def client_settings() -> Client:
    """Read how commands find a running platform; an unset profile file becomes the user's own."""
    client = _read(Client, process_environment())
    if client.profile_file:
        return client
    home = process_environment().get("XDG_CONFIG_HOME") or str(pathlib.Path.home() / ".config")
    return dataclasses.replace(client, profile_file=str(pathlib.Path(home) / "forestay" / "profile.json"))


Group = TypeVar(
    "Group",
    Storage,
    Queue,
    Gateway,
    Worker,
    Ingress,
    Delivery,
    Limits,
    Artefacts,
    Judge,
    Secrets,
    Identity,
    Safety,
    Observe,
    Alerts,
    Quality,
    Client,
)
_PARSERS: Mapping[type, typing.Callable[[str], object]] = types.MappingProxyType(
    {
        int: int,
        float: float,
        str: str,
        bool: lambda text: {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
            text.lower()
        ],
    }
)


def _read(group: type[Group], environment: Mapping[str, str]) -> Group:
    values: dict[str, object] = {}
    for field in dataclasses.fields(group):
        variable: str = field.metadata["variable"]
        text = environment.get(variable, "")
        if not text:
            continue
        kind = typing.cast("type[object]", type(field.default))  # the default's own type says how to read the text
        try:
            values[field.name] = _PARSERS[kind](text)
        except (ValueError, KeyError):
            expected = "true or false" if kind is bool else f"a value of type {kind.__name__}"
            raise UsageError(variable, f"{text!r} is not {expected}; {field.metadata['doc']}") from None
        fault = number_fault(variable, values[field.name])
        if fault:
            raise UsageError(variable, f"{text!r} {fault}; {field.metadata['doc']}")
    return group(**values)  # pyright: ignore[reportArgumentType] - parsed by the field's own default type
