"""Scores speech by DNSMOS (ITU-T P.835) with the models of `speechmos`, which live in the scorer's own environment.

DNSMOS rates digital silence above noise, so it comes after rules: what is silent is broken by its contract and is never
offered here, and a recording that is nearly silent gets no score.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 16_000
QUIET = 1e-3  # root mean square below which nothing is said
NAMES = {"ovrl_mos": "overall", "sig_mos": "speech", "bak_mos": "background"}


class Scorer:
    """Overall, speech and background of DNSMOS, 1 to 5."""

    name = "dnsmos"
    version = 1
    modality = "audio"
    scores = {name: {"low": 0, "high": 5} for name in NAMES.values()}  # noqa: RUF012 - read, never changed

    def setup(self) -> None:
        """Load the models."""
        import soundfile  # noqa: PLC0415 - in the scorer's environment alone
        from speechmos import dnsmos  # noqa: PLC0415

        self._read, self._run = soundfile.read, dnsmos.run

    def score(self, items: list) -> list:
        """Return the three scores of each recording; None where it is too quiet, or empty."""
        return [self._one(*self._read(str(item.path), dtype="float32", always_2d=True)) for item in items]

    def _one(self, samples: np.ndarray, rate_hz: int) -> dict[str, float] | None:
        mono = samples.mean(axis=1)
        if not len(mono) or float(np.sqrt(np.mean(np.square(mono)))) < QUIET:
            return None
        if rate_hz != RATE_HZ:  # linear: what it leaves out lies above what speech needs
            at = np.arange(0, len(mono), rate_hz / RATE_HZ)
            mono = np.interp(at, np.arange(len(mono)), mono)
        found = self._run(np.clip(mono, -1.0, 1.0).astype(np.float32), RATE_HZ)
        return {name: float(found[key]) for key, name in NAMES.items()}
