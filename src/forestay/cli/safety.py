"""`forestay safety`: what the guard knows and does. One module a subject; this one only gathers them."""

import typer

from forestay.cli import safety_evaluate, safety_hashes, safety_provenance, safety_reports

app = typer.Typer(
    no_args_is_help=True,
    help="Hash lists: make, fill and read them; look a file up. Detectors: measure them on rows of your own.",
)
safety_hashes.register(app)
safety_evaluate.register(app)
safety_provenance.register(app)
safety_reports.register(app)
