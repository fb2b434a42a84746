"""A drain of log lines: what a process writes goes to an HTTP endpoint too, as NDJSON or as OTLP logs, off every path.

Lines wait in a bounded buffer; a thread sends them in batches, signed where there is a secret. While nobody takes them
the oldest are dropped and counted: a drain never holds up a process and never grows. It decides how lines are batched
and signed; which lines there are is decided by who logs. Started by every process (`logs.configure` writes to it).
"""

import atexit
import datetime as dt
import hashlib
import hmac
import http.client
import ssl
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from forestay import __version__
from forestay.errors import UsageError
from forestay.telemetry import tracing

MAX_KEPT_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 512 * 1024
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
LAST_SECONDS = 2.0  # at the end of the process
LEAST_SECRET = 64  # characters, as fal asks of its drains
SIGNATURE = "x-forestay-signature"
FORMATS = ("ndjson", "otlp")
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
# https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
_SEVERITY = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_ids = msgspec.json.Decoder(dict[str, object])
Count = Callable[[str, int], None]  # fate, lines


class Drain:
    """One endpoint; `count` is told what became of lines: sent, dropped (no room), refused."""

    def __init__(self, url: str, *, form: str, secret: str, service: str, count: Count) -> None:
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise UsageError("FORESTAY_LOG_DRAIN_URL", "is no URL such as https://logs.example/forestay")
        if form not in FORMATS:
            raise UsageError("FORESTAY_LOG_DRAIN_FORMAT", f"must be one of {', '.join(FORMATS)}")
        if secret and len(secret) < LEAST_SECRET:
            raise UsageError("FORESTAY_LOG_DRAIN_SECRET", f"is shorter than {LEAST_SECRET} characters")
        self._form = form
        self._secret = secret.encode()
        self._service = service
        self._count = count
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._some = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-drain", daemon=True)

    def start(self) -> None:
        """Begin sending; what is left at the end of the process has two seconds."""
        self._thread.start()
        atexit.register(self.stop)

    def take(self, data: bytes) -> None:
        """Keep whole lines for the next batch, dropping the oldest where there is no room."""
        dropped = 0
        with self._lock:
            self._kept.append(data)
            self._kept_bytes += len(data)
            while self._kept_bytes > MAX_KEPT_BYTES:
                gone = self._kept.popleft()
                self._kept_bytes -= len(gone)
                dropped += gone.count(b"\n")
        if dropped:
            self._count("dropped", dropped)
        self._some.set()

    def stop(self) -> None:
        """Send what is left, within two seconds."""
        self._ended.set()
        self._some.set()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        while True:
            self._some.wait()
            if not self._ended.is_set():
                self._ended.wait(PAUSE_SECONDS)  # lines that come together go together
            self._some.clear()
            while batch := self._taken():
                self._deliver(batch)
            if self._ended.is_set():
                return

    def _taken(self) -> bytes:
        with self._lock:
            pieces: list[bytes] = []
            size = 0
            while self._kept and size < BATCH_BYTES:
                pieces.append(self._kept.popleft())
                size += len(pieces[-1])
            self._kept_bytes -= size
        return b"".join(pieces)

    def _deliver(self, batch: bytes) -> None:
        lines = batch.count(b"\n")
        for pause in (*_PAUSES, None):
            status = self._post(batch)
            if 200 <= status < 300:
                self._count("sent", lines)
                return
            if status and status not in _AGAIN:
                self._count("refused", lines)
                return
            if pause is None or self._ended.wait(pause):
                break
        self._count("dropped", lines)

    def _post(self, batch: bytes) -> int:
        """Send one batch; returns the status, 0 when nobody answered."""
        body = batch if self._form == "ndjson" else otlp_logs(batch, self._service)
        kind = "application/x-ndjson" if self._form == "ndjson" else "application/json"
        headers = {"content-type": kind, "user-agent": f"forestay/{__version__}"}
        if self._secret:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        connection = self._connect()
        try:
            target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
            connection.request("POST", target, body=body, headers=headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, timeout = self._parts.hostname or "", LAST_SECONDS if self._ended.is_set() else TIMEOUT_SECONDS
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, self._parts.port, timeout=timeout)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, self._parts.port, timeout=timeout, context=context)


def otlp_logs(batch: bytes, service: str) -> bytes:
    """Return lines as an ExportLogsServiceRequest in JSON; the action is the body, the rest attributes."""
    records = [_record(line) for line in batch.splitlines() if line]
    return msgspec.json.encode({
        "resourceLogs": [{
            "resource": {"attributes": [_attribute("service.name", service)]},
            "scopeLogs": [{"scope": {"name": "forestay", "version": __version__}, "logRecords": records}],
        }]
    })  # fmt: skip


def _record(line: bytes) -> Mapping[str, object]:
    try:
        fields = _ids.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {"body": {"stringValue": line.decode("utf-8", "replace")}}
    level = str(fields.pop("level", "info"))
    context = tracing.read(str(fields.get("traceparent")))
    traced = {} if context is None else {"traceId": context.trace_id, "spanId": context.span_id}
    return {
        "timeUnixNano": _nanoseconds(str(fields.pop("at", ""))),
        **traced,
        "body": {"stringValue": str(fields.pop("action", ""))},
        "severityText": level.upper(),
        "severityNumber": _SEVERITY.get(level, 9),
        "attributes": [_attribute(name, value) for name, value in fields.items() if value is not None],
    }


def _nanoseconds(text: str) -> str:
    """Return a moment as the protocol writes it; 0 means that it is not known."""
    try:
        since = dt.datetime.fromisoformat(text) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    except (ValueError, TypeError):
        return "0"
    return str((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000)


def _attribute(name: str, value: object) -> Mapping[str, object]:
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    if isinstance(value, float):
        return {"key": name, "value": {"doubleValue": value}}
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {"key": name, "value": {"stringValue": text}}
