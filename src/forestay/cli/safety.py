"""`forestay safety`: what the guard knows and does. One module a subject; this one only gathers them."""

import typer

from forestay.cli import (
    safety_audit,
    safety_coverage,
    safety_evaluate,
    safety_hashes,
    safety_policy,
    safety_provenance,
    safety_replay,
    safety_reports,
    safety_review,
)

app = typer.Typer(no_args_is_help=True, help="Content: policies, verdicts, reviews, appeals, hash lists, origin.")
for subject in (
    safety_policy,
    safety_coverage,
    safety_review,
    safety_replay,
    safety_evaluate,
    safety_hashes,
    safety_provenance,
    safety_reports,
    safety_audit,
):
    subject.register(app)
