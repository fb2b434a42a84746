"""Memory of an idle gateway and of an idle worker without a model, on a platform that has served and come to rest.

Measured as PSS (shared pages counted in proportion) where the system tells it, else as RSS. The controller and the
supervisor are shown beside them, without a target.
"""

import pathlib
import time

from tests.platform.platform import RunningPlatform

from bench.table import Row, median

LIMIT_MB = 120.0
_REST_SECONDS = 3.0
_SHOWN = {"gateway-1": "gateway", "worker-1": "worker", "controller": "controller", "supervisor": "supervisor"}


def memory_mb(pid: int) -> tuple[float, str]:
    """Return the megabytes of a process and what they are: PSS or RSS."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = pathlib.Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found = [line.split()[1] for line in lines if line.startswith(field)]
        if found:
            return int(found[0]) / 1024, field.rstrip(":").removeprefix("Vm").upper()
    raise RuntimeError(f"the memory of process {pid} cannot be read here")


def run(rounds: int) -> list[Row]:
    """Start a platform, let it rest, read; once a round on the same platform."""
    values: dict[str, list[float]] = {name: [] for name in _SHOWN}
    kind = ""
    with RunningPlatform("--workers", "1") as platform:
        pids = platform.pids
        for _ in range(rounds):
            time.sleep(_REST_SECONDS)
            for name in _SHOWN:
                value, kind = memory_mb(pids[name])
                values[name].append(value)
    return [
        Row(
            f"idle {shown}",
            median(values[name]),
            f"MB {kind}",
            LIMIT_MB if shown in ("gateway", "worker") else None,
            "<=",
        )
        for name, shown in _SHOWN.items()
    ]
