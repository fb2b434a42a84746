"""Reads what a fal.App says of itself (the shim's `ready` message or `--describe` answer) into a Description. Pure.

Model code is untrusted: every field is checked, and one of the wrong type counts as absent.
"""

from collections.abc import Mapping
from typing import cast

from forestay.worker.hosts.host import Description, HealthCheck


def read_description(message: Mapping[str, object], slots: int) -> Description:
    """Build the Description of a fal.App; `slots` comes from the spec, whose limits rule."""
    openapi, hints = message.get("openapi"), message.get("hints")
    settings = _mapping(message.get("settings"))
    listed = cast("list[object]", hints) if isinstance(hints, list) else []
    return Description(
        openapi=_mapping(cast("object", openapi)) or None,
        slots=slots,
        hints=tuple(hint[:256] for hint in listed[:64] if isinstance(hint, str)),
        health_check=_health_check(_mapping(settings.get("health_check"))),
        settings=settings,
    )


def _health_check(values: Mapping[str, object]) -> HealthCheck | None:
    path = values.get("path")
    if not isinstance(path, str):
        return None
    default = HealthCheck(path)
    regularly, method = values.get("call_regularly"), values.get("method")
    return HealthCheck(
        path=path,
        start_period_seconds=_number(values.get("start_period_seconds"), default.start_period_seconds),
        timeout_seconds=_number(values.get("timeout_seconds"), default.timeout_seconds),
        failure_threshold=max(1, round(_number(values.get("failure_threshold"), default.failure_threshold))),
        call_regularly=regularly if isinstance(regularly, bool) else default.call_regularly,
        method=method if method in {"GET", "POST"} and isinstance(method, str) else default.method,
    )


def _mapping(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _number(value: object, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return float(value) if value > 0 else default
