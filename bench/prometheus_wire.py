"""Samples as a Prometheus takes them by its remote-write interface, and its rules with shorter minutes. Pure.

Remote write is a protobuf message (`prometheus.WriteRequest`, remote.proto of Prometheus) in snappy's block format, of
which literals alone are used. Samples may lie ahead in time: a rule sees them when its time has come, at exactly the
time that they name, however busy the machine is. Called by `prometheus_live`.
"""

import dataclasses
import math
import re
import struct
from collections.abc import Mapping, Sequence

import yaml

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""What a Prometheus writes when a scrape fails (value.StaleNaN): the series is gone until its next sample."""
_MINUTE_MS = 60_000
_LITERAL = 60_000
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_PLACES = re.compile(r"(?<=\[)[0-9ms]+(?=\])|(?<=\boffset )[0-9ms]+\b")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One series: its labels with `__name__`, and its samples (milliseconds since 1970, value) in order."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[int, float]]


def write_request(lines: Sequence[Line]) -> bytes:
    """Return the body of a remote write."""
    return _snappy(b"".join(_field(1, _series(line)) for line in lines))


def with_short_minutes(rules: str, minute_ms: int) -> str:
    """Return a file of rules in which a minute lasts `minute_ms`: intervals, ranges and offsets, nothing else."""
    values = yaml.safe_load(rules)
    for group in values["groups"]:
        group["interval"] = shortened(group["interval"], minute_ms)
        for rule in group["rules"]:
            rule["expr"] = _PLACES.sub(lambda match: shortened(match[0], minute_ms), rule["expr"])
    return yaml.safe_dump(values, sort_keys=False, width=1_000)


def shortened(duration: str, minute_ms: int) -> str:
    """Return a duration in minutes of `minute_ms`; what is short of whole minutes stays short, by 1 ms at least."""
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError(f"{duration!r} is no duration of minutes, seconds and milliseconds")
    minutes, seconds, rest = (int(part or 0) for part in match.groups())
    whole = (minutes * 60 + seconds) * 1000 + rest
    upwards = math.ceil(whole / _MINUTE_MS)
    short = upwards - whole / _MINUTE_MS
    return f"{upwards * minute_ms - (max(1, round(short * minute_ms)) if short else 0)}ms"


def _series(line: Line) -> bytes:
    labels = (_field(1, name.encode()) + _field(2, value.encode()) for name, value in sorted(line.labels.items()))
    samples = (b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(at) for at, value in line.samples)
    return b"".join(_field(1, label) for label in labels) + b"".join(_field(2, sample) for sample in samples)


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _snappy(body: bytes) -> bytes:
    parts = [_varint(len(body))]
    for start in range(0, len(body), _LITERAL):
        piece = body[start : start + _LITERAL]
        parts += [bytes([61 << 2]), struct.pack("<H", len(piece) - 1), piece]
    return b"".join(parts)
