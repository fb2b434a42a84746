"""Over the whole corpus: every crafted artefact is refused, every honest one is admitted."""

import datetime as dt
import pathlib

import pytest
from tests.artefacts.corpus import Case, bad, good

from forestay.artefacts.decide import Admit, Policy, Refuse, decide_admission
from forestay.artefacts.findings import MEANINGS, FlawKind
from forestay.artefacts.folder import examine_path
from forestay.artefacts.signatures import Signatures
from forestay.fleet.spec import ArtefactSpec

BAD, GOOD = list(bad()), list(good())
PLAIN = Policy(ArtefactSpec(), signatures_required=False)
TODAY = dt.date(2026, 1, 1)


def judge(case: Case, folder: pathlib.Path) -> Admit | Refuse:
    """Write a case, examine it and decide."""
    seen = examine_path(case.write(folder))
    return decide_admission(seen.files, seen.findings, Signatures(), PLAIN, TODAY)


@pytest.mark.threat("ML06:2023", "AML.T0010", "AML.T0011.000")
@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_crafted_artefact_is_refused(case: Case, tmp_path: pathlib.Path) -> None:
    """With a finding that names a file of it, says what is wrong, and how to mend it."""
    judged = judge(case, tmp_path)
    assert isinstance(judged, Refuse)
    first = judged.findings[0]
    named = {*case.files, *case.links, first.file} if not first.file.isascii() or "\\" in first.file else None
    assert named or first.file in {*case.files, *case.links}
    assert first.what
    assert MEANINGS[first.kind].mend in judged.reason


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_an_honest_artefact_is_admitted(case: Case, tmp_path: pathlib.Path) -> None:
    """Without a waiver and without a finding."""
    judged = judge(case, tmp_path)
    assert isinstance(judged, Admit), judged.reason
    assert judged.waived == ()


def test_the_corpus_is_as_large_as_promised() -> None:
    """At least 120 crafted and 40 honest artefacts, each under a name of its own."""
    assert len({case.name for case in BAD}) == len(BAD) >= 120
    assert len({case.name for case in GOOD}) == len(GOOD) >= 40


def test_the_corpus_reaches_every_kind_of_flaw_in_a_file(tmp_path: pathlib.Path) -> None:
    """No kind of flaw is without a file that has it; the others are about signatures, loads and mounts."""
    seen: set[FlawKind] = set()
    for number, case in enumerate(BAD):
        if sum(map(len, case.files.values())) < 1_000_000:
            seen |= {item.kind for item in examine_path(case.write(tmp_path / str(number))).findings}
    elsewhere = {
        FlawKind.ALTERED,
        FlawKind.ADDED,
        FlawKind.MISSING,
        FlawKind.SIGNATURE,
        FlawKind.MOUNT,
        FlawKind.OPINION,
    }
    assert set(FlawKind) - seen == elsewhere


def test_every_kind_of_flaw_says_how_to_mend_it() -> None:
    """A finding without a mend is of no use at 3 a.m."""
    assert set(MEANINGS) == set(FlawKind)
