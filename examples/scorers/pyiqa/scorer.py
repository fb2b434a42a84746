"""Scores pictures by one no-reference metric of pyiqa (IQA-PyTorch), which lives in the scorer's own environment.

`PYIQA_METRIC` names the metric. pyiqa fetches weights at first use: fetch them once with a network, and name their
folder in the entry's `reads` (and `TORCH_HOME` in its `env`), since a scorer runs without one. Ranges are those that
the project documents; a score beyond its range is dropped and counted.
"""

from __future__ import annotations

import os

RANGES = {"musiq": (0, 100, True), "clipiqa": (0, 1, True), "topiq_nr": (0, 1, True), "niqe": (0, 100, False)}
METRIC = os.environ.get("PYIQA_METRIC", "musiq")


class Scorer:
    """One metric of pyiqa."""

    name = f"pyiqa-{METRIC.replace('_', '-')}"
    version = 1
    modality = "image"
    scores = {  # noqa: RUF012 - read, never changed
        METRIC: dict(zip(("low", "high", "higher_is_better"), RANGES[METRIC], strict=True))
    }

    def setup(self) -> None:
        """Load the metric."""
        import pyiqa  # noqa: PLC0415 - in the scorer's environment alone
        import torch  # noqa: PLC0415

        self._metric = pyiqa.create_metric(METRIC, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if bool(self._metric.lower_better) is RANGES[METRIC][2]:
            raise ValueError(f"this pyiqa counts {METRIC} the other way round: correct RANGES")

    def score(self, items: list) -> list:
        """Return the metric of each picture."""
        return [{METRIC: float(self._metric(str(item.path)).item())} for item in items]
