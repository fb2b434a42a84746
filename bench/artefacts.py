"""`artefacts`: which crafted model files are refused and which honest ones admitted, beside fickling's word.

The corpus is that of the tests (`tests/artefacts/corpus.py`): built here, written to a folder, read, never loaded. A
case counts as refused when admission refuses it without a waiver. fickling is asked about every file of a case that it
can read as a pickle (raw or as torch's `data.pkl`); a case that holds none is outside what it claims to judge.
"""

import datetime as dt
import io
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Iterable

from tests.artefacts.corpus import Case, bad, good

from bench.table import Row, median
from forestay.artefacts.decide import Policy, Refuse, decide_admission
from forestay.artefacts.folder import examine_path
from forestay.artefacts.signatures import Signatures
from forestay.fleet.spec import ArtefactSpec

POLICY = Policy(ArtefactSpec(), signatures_required=False)
DAY = dt.date(2026, 1, 1)
LARGE_BYTES = 1_000_000  # a case above it tells of the disk rather than of the readers


def run(rounds: int) -> list[Row]:
    """Judge the whole corpus `rounds` times; rates are of the last round, times are medians."""
    crafted, honest = list(bad()), list(good())
    with tempfile.TemporaryDirectory(prefix="fs-bench-") as name:
        places = {
            case.name: case.write(pathlib.Path(name) / kind / str(number))
            for kind, cases in (("bad", crafted), ("good", honest))
            for number, case in enumerate(cases)
        }
        times: dict[str, list[float]] = {case.name: [] for case in (*crafted, *honest)}
        refused: dict[str, bool] = {}
        for _ in range(rounds):
            for case in (*crafted, *honest):
                began = time.perf_counter()
                refused[case.name] = _is_refused(places[case.name])
                times[case.name].append(time.perf_counter() - began)
    return [*_rates(crafted, honest, refused), *_times((*crafted, *honest), times), *_peer(crafted, honest)]


def _is_refused(folder: pathlib.Path) -> bool:
    seen = examine_path(folder)
    return isinstance(decide_admission(seen.files, seen.findings, Signatures(), POLICY, DAY), Refuse)


def _rates(crafted: list[Case], honest: list[Case], refused: dict[str, bool]) -> list[Row]:
    missed = [case.name for case in crafted if not refused[case.name]]
    wronged = [case.name for case in honest if refused[case.name]]
    return [
        Row("crafted artefacts", len(crafted), "cases", 120),
        Row("of them refused", 100 * (1 - len(missed) / len(crafted)), "%", 100, note="; ".join(missed[:3])),
        Row("honest artefacts", len(honest), "cases", 40),
        Row("of them admitted", 100 * (1 - len(wronged) / len(honest)), "%", 100, note="; ".join(wronged[:3])),
    ]


def _times(cases: Iterable[Case], times: dict[str, list[float]]) -> list[Row]:
    small = [case for case in cases if sum(map(len, case.files.values())) < LARGE_BYTES]
    files = sum(len(case.files) for case in small)
    spent = sorted(median(times[case.name]) for case in small)
    return [
        Row("a file, on average", 1000 * sum(spent) / files, "ms", note=f"{files} files below 1 MB, SHA-256 included"),
        Row("a case, p99", 1000 * spent[int(0.99 * len(spent))], "ms"),
    ]


def _peer(crafted: list[Case], honest: list[Case]) -> list[Row]:
    asked = [verdict for case in crafted if (verdict := _fickling(case)) is not None]
    alarms = [verdict for case in honest if (verdict := _fickling(case)) is not None]
    note = f"{len(asked)} of {len(crafted)} crafted cases hold a pickle that it takes up"
    return [
        Row("fickling: refused of what it takes up", 100 * sum(asked) / max(1, len(asked)), "%", note=note),
        Row("fickling: refused of all crafted", 100 * sum(asked) / len(crafted), "%"),
        Row(
            "fickling: refused of honest", 100 * sum(alarms) / max(1, len(alarms)), "%", note=f"{len(alarms)} taken up"
        ),
    ]


def _fickling(case: Case) -> bool | None:
    """Return fickling's verdict on a case: whether it calls a file of it unsafe; None where it takes up none."""
    verdicts = [verdict for data in case.files.values() if (verdict := _verdict(data)) is not None]
    return any(verdicts) if verdicts else None


def _verdict(data: bytes) -> bool | None:
    from fickling.analysis import Severity, check_safety  # noqa: PLC0415 - a peer, only here
    from fickling.fickle import Pickled  # noqa: PLC0415

    if len(data) > LARGE_BYTES:
        return None
    try:
        if data[:4] == b"PK\3\4":
            archive = zipfile.ZipFile(io.BytesIO(data))
            data = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        return check_safety(Pickled.load(data)).severity > Severity.LIKELY_SAFE
    except Exception:  # noqa: BLE001 - whatever it raises, it has no verdict
        return None
