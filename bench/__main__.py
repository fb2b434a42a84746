"""`python -m bench NAME [--json FILE] [--rounds N]`: run one bench; exit 1 when a target falls short."""

import argparse
import importlib
import pathlib
import sys

from bench.table import show

NAMES = (
    "gateway",
    "submit",
    "queue",
    "status",
    "crash",
    "memory",
    "history",
    "artefacts",
    "ratelimit",
    "protect_overhead",
    "ingress",
    "abuse",
    "fairness",
    "overload",
    "safety_latency",
    "safety_image",
    "hashes",
    "safety_text",
    "safety_thresholds",
    "safety_disguise",
    "quality_cost",
    "quality_diagnosis",
    "quality_faults",
    "drift_delay",
    "drift_arl",
    "drift_fleet",
    "safety_faults",
    "slo_false_pages",
    "slo_delay",
    "slo_budget",
    "canary_exposure",
    "canary_type1",
    "rollout_crash",
    "rollback_latency",
    "shadow_diff",
    "shadow_cost",
    "telemetry_overhead",
    "notify_faults",
    "slo_engine",
    "slo_corpus",
    "slo_prometheus",
    "onboarding",
)


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved rounds of which the median counts (default 5)"
    )
    arguments = parser.parse_args()
    module = importlib.import_module(f"bench.{arguments.name}")
    return 0 if show(arguments.name, module.run(arguments.rounds), arguments.json) else 1


if __name__ == "__main__":
    sys.exit(main())
