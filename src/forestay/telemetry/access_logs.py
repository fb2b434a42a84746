"""Access logs of nginx and envoy, a line at a time, as facts from outside. Pure.

It decides which formats are read and what a line's parts mean; a line that cannot be read is told by its field. Queries
are cut off (they may hold secrets), and neither addresses nor clients are kept. Called by `forestay observe ingest`.

nginx: the `combined` format followed by `rt=$request_time`, and, if wanted, `uct=$upstream_connect_time
uht=$upstream_header_time id=$request_id`. envoy: its default format, and Istio's.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping

import msgspec

from forestay.errors import UsageError

Line = dict[str, object]
_NGINX = re.compile(
    r'(?P<address>\S+) - (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\S+) \S+'
    r'(?: "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*")?(?P<more>.*)'
)
_ENVOY = re.compile(
    r'\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d+) (?P<flags>\S+)(?: \S+ \S+ "[^"]*")? \d+ \d+'
    r' (?P<duration>\d+) \S+ "[^"]*" "[^"]*" "(?P<id>[^"]*)" "[^"]*" "(?P<host>[^"]*)"'
)
_PAIRS = re.compile(r"(\w+)=\"?([^\s\"]*)\"?")
# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage, RESPONSE_FLAGS
_FLAGS = {
    "DC": "cancelled",
    "UF": "upstream",
    "UH": "upstream",
    "UC": "upstream",
    "UR": "upstream",
    "UT": "upstream",
    "URX": "upstream",
    "UO": "platform",
    "NR": "caller_error",
    "RL": "caller_error",
    "UAEX": "caller_error",
}


def parser_of(kind: str, model: str) -> Callable[[str], Line]:
    """Return what reads a line of a kind: nginx, envoy or jsonl; `model` goes before what the path says, if not empty.

    The parser raises UsageError, naming the field, for a line that it cannot read.
    """
    parsers: Mapping[str, Callable[[str, str], Line]] = {
        "nginx": parse_nginx,
        "envoy": parse_envoy,
        "jsonl": parse_jsonl,
    }
    if kind not in parsers:
        raise UsageError("--format", f"must be one of {', '.join(parsers)}")
    return lambda line: parsers[kind](line, model)


def parse_nginx(line: str, model: str = "") -> Line:
    """Read a line of nginx."""
    found = _NGINX.fullmatch(line.strip())
    if found is None:
        raise UsageError("line", "is not in nginx's combined format")
    more = dict(_PAIRS.findall(found["more"]))
    took = more.get("rt") or more.get("request_time")
    if took is None:
        raise UsageError("request_time", "is missing; end log_format with rt=$request_time")
    try:
        ended = dt.datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        raise UsageError("time_local", f"{found['time']!r} is no time of nginx") from None
    read: Line = {
        **_called(found["request"], model),
        "status": _whole("status", found["status"]),
        "finished_at": ended.isoformat(),
        "seconds": _seconds("request_time", took),
    }
    if found["user"] != "-":
        read["tenant"] = found["user"]
    for name, field in (("uct", "wait_seconds"), ("uht", "first_byte_seconds")):
        value = more.get(name, "-")
        if value != "-":
            read[field] = _seconds(name, value)
    if more.get("id"):
        read["id"] = more["id"]
    return read


def parse_envoy(line: str, model: str = "") -> Line:
    """Read a line of envoy's default format."""
    found = _ENVOY.match(line.strip())
    if found is None:
        raise UsageError("line", "is not in envoy's default format")
    try:
        began = dt.datetime.fromisoformat(found["time"])
    except ValueError:
        raise UsageError("start_time", f"{found['time']!r} is no time of envoy") from None
    seconds = _whole("duration", found["duration"]) / 1000.0
    read: Line = {
        **_called(found["request"], model),
        "status": _whole("response_code", found["status"]) or 499,  # 0: the caller left before an answer began
        "finished_at": (began + dt.timedelta(seconds=seconds)).isoformat(),
        "seconds": seconds,
    }
    outcome = next((_FLAGS[flag] for flag in found["flags"].split(",") if flag in _FLAGS), "")
    if outcome:
        read["outcome"] = outcome
    if found["id"] not in {"", "-"}:
        read["id"] = found["id"]
    if found["host"] not in {"", "-"}:
        read["worker"] = found["host"]
    return read


def parse_jsonl(line: str, model: str = "") -> Line:
    """Read a fact that is written as one already."""
    try:
        read = msgspec.json.decode(line, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UsageError("line", f"is no JSON object ({error})") from None
    return {**read, "model": model} if model else read


def _called(request: str, model: str) -> Line:
    """Return model and endpoint: the first two segments of the path, and what follows them."""
    words = request.split(" ")
    if len(words) < 2:
        raise UsageError("request", "holds no method and path")
    path = words[1].partition("?")[0].partition("#")[0]
    if model:
        return {"model": model, "endpoint": path or "/"}
    segments = [segment for segment in path.split("/") if segment]
    if len(segments) < 2:
        raise UsageError("request", "names no owner/alias in its path; say --model")
    return {"model": "/".join(segments[:2]), "endpoint": "/" + "/".join(segments[2:])}


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(field, f"{text[:20]!r} is no whole number")
    return int(text[:12])


def _seconds(field: str, text: str) -> float:
    """Read a time of nginx: a number, or several of servers tried in turn, whose sum it is."""
    try:
        return sum(float(piece) for piece in re.split(r"[,:]\s*", text) if piece not in {"", "-"})
    except ValueError:
        raise UsageError(field, f"{text[:20]!r} is no number of seconds") from None
