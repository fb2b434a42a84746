"""Scores films by six dimensions of VBench, which lives in the scorer's own environment (it pins old libraries).

These are the dimensions that VBench takes for films of one's own (`mode="custom_input"`). `VBENCH_INFO` names its file
`VBench_full_info.json`; weights must be there before, since a scorer runs without a network. A film takes minutes of a
GPU: give the entry a long `timeout_seconds`, a device, and the spec a small `share`.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile

DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)


class Scorer:
    """Six dimensions of VBench."""

    name = "vbench"
    version = 1
    modality = "video"
    scores = {name: {"low": 0, "high": 1} for name in DIMENSIONS}  # noqa: RUF012 - read, never changed

    def setup(self) -> None:
        """Make the evaluator."""
        import torch  # noqa: PLC0415 - in the scorer's environment alone
        from vbench import VBench  # noqa: PLC0415

        self._out = pathlib.Path(tempfile.mkdtemp())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._vbench = VBench(device, os.environ["VBENCH_INFO"], str(self._out))

    def score(self, items: list) -> list:
        """Return the dimensions of each film; VBench takes a folder and writes a file of results."""
        with tempfile.TemporaryDirectory() as folder:
            for number, item in enumerate(items):
                (pathlib.Path(folder) / f"{number:04}.mp4").symlink_to(item.path)
            self._vbench.evaluate(
                videos_path=folder, name="batch", dimension_list=list(DIMENSIONS), mode="custom_input"
            )
        found = json.loads((self._out / "batch_eval_results.json").read_text())
        return [{name: _of(found[name][1], number) for name in DIMENSIONS} for number in range(len(items))]


def _of(results: list, number: int) -> float:
    """Return what a dimension says of one film; it is found by its name."""
    value = next(one["video_results"] for one in results if pathlib.Path(one["video_path"]).stem == f"{number:04}")
    value = float(value)
    return value / 100 if value > 1 else value  # VBench gives `imaging_quality` of single films from 0 to 100
