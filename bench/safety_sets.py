"""The prompt sets that the safety benches measure on, taught and scored out of fold. No bench by itself.

The folder comes from FORESTAY_PROMPT_SETS, or is `../shared/data/prompts` beside the repository. The teaching code is
the one that made the shipped weights (`tools/text_guard`); what is reported was never seen by the
weights that score it.
"""

import functools
import os
import pathlib
import sys

import numpy as np
import numpy.typing as npt
from tools.text_guard.features import matrix_of
from tools.text_guard.fit import Teacher
from tools.text_guard.honest import out_of_fold
from tools.text_guard.rows import read_rows

from forestay.safety.text.measure import Measure

HARMLESS_PICTURES = ("captions", "parti")


def folder() -> pathlib.Path:
    """Return the folder of the prompt sets; ends the program with a sentence when it is absent."""
    beside = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "prompts"
    found = pathlib.Path(os.environ.get("FORESTAY_PROMPT_SETS", str(beside)))
    if not found.is_dir():
        raise SystemExit(f"no prompt sets in {found}: set FORESTAY_PROMPT_SETS to the folder that holds them")
    return found


@functools.cache
def teacher() -> Teacher:
    """Return all rows with their features."""
    rows = read_rows(folder())
    return Teacher(rows, matrix_of([row.text for row in rows]))


@functools.cache
def scored(mode: str, seeds: int) -> npt.NDArray[np.float64]:
    """Return `[seeds, n]` scores out of fold."""
    return out_of_fold(teacher(), mode, range(seeds), lambda line: print(line, file=sys.stderr, flush=True))


def told(measure: Measure) -> str:
    """Return a measure's interval in words."""
    return f"95 % {measure.low:.3f} to {measure.high:.3f}"
