"""Admission: every finding forbids, and a waiver lifts exactly one kind, by name, until its day."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from forestay.artefacts.decide import Admit, Policy, Refuse, decide_admission
from forestay.artefacts.findings import Finding, FlawKind
from forestay.artefacts.folder import SeenFile
from forestay.artefacts.formats import Format
from forestay.artefacts.signatures import Signatures, SignedFolder
from forestay.fleet.spec import ArtefactSpec, PickleWaiver

DAY = dt.date(2026, 6, 1)
NAMES = ("a.pt", "b.pt", "c.safetensors")
FILES = tuple(
    SeenFile(name, 1, "0" * 64, Format.SAFETENSORS if name.endswith("s") else Format.TORCH_ZIP) for name in NAMES
)
findings_ = st.lists(st.builds(Finding, st.sampled_from(NAMES), st.sampled_from(FlawKind), st.just(""), st.just("x")))
waivers = st.builds(
    PickleWaiver,
    st.lists(st.sampled_from(NAMES), unique=True).map(tuple),
    st.just("old weights"),
    st.dates(dt.date(2026, 5, 1), dt.date(2026, 7, 1)),
)


def policy(waiver: PickleWaiver | None = None, **more: object) -> Policy:
    """Return a policy."""
    required = bool(more.pop("operator", False))
    return Policy(ArtefactSpec(allow_pickle=waiver, **more), signatures_required=required)  # type: ignore[arg-type]


@given(findings_, st.none() | waivers)
def test_only_waived_pickles_are_let_through(findings: list[Finding], waiver: PickleWaiver | None) -> None:
    """Admission with findings means: each is a pickle, named by a waiver that has not ended."""
    decided = decide_admission(FILES, findings, Signatures(), policy(waiver), DAY)
    lifted = [
        item
        for item in findings
        if waiver and item.kind is FlawKind.PICKLE and item.file in waiver.files and waiver.until >= DAY
    ]
    assert isinstance(decided, Admit) == (len(lifted) == len(findings))
    if isinstance(decided, Admit):
        assert set(decided.waived) == {item.file for item in findings}


@given(findings_, waivers, st.sampled_from(FlawKind))
def test_one_more_finding_never_admits(findings: list[Finding], waiver: PickleWaiver, kind: FlawKind) -> None:
    """Refusal is monotone in findings."""
    before = decide_admission(FILES, findings, Signatures(), policy(waiver), DAY)
    after = decide_admission(FILES, [*findings, Finding("a.pt", kind, "", "x")], Signatures(), policy(waiver), DAY)
    assert isinstance(before, Admit) or isinstance(after, Refuse)


def test_a_waiver_that_has_ended_is_said() -> None:
    """The refusal names the day."""
    waiver = PickleWaiver(("a.pt",), "old weights", dt.date(2026, 5, 31))
    decided = decide_admission(
        FILES, [Finding("a.pt", FlawKind.PICKLE, "", "is a pickle")], Signatures(), policy(waiver), DAY
    )
    assert isinstance(decided, Refuse)
    assert "its waiver ended on 2026-05-31" in decided.reason


def test_a_waiver_for_a_file_that_is_not_there_is_said() -> None:
    """A misspelt name is a fault, not a silent nothing."""
    decided = decide_admission(FILES, [], Signatures(), policy(PickleWaiver(("z.pt",), "r", DAY)), DAY)
    assert isinstance(decided, Refuse)
    assert "z.pt" in decided.reason


@given(st.sets(st.sampled_from(NAMES)), st.booleans(), st.sampled_from([(), ("ours",), ("theirs",)]))
def test_where_signatures_are_required_all_weights_must_be_covered(
    covered: set[str], operator: bool, keys: tuple[str, ...]
) -> None:
    """By a signature of a key that counts; the operator's wish and the spec's are one and the same."""
    signatures = Signatures((SignedFolder("", "ours", frozenset(covered)),))
    asked = policy(operator=operator, signature="optional" if operator else "required", keys=keys)
    decided = decide_admission(FILES, [], signatures, asked, DAY)
    assert isinstance(decided, Admit) == (covered == set(NAMES) and keys != ("theirs",))


def test_the_worst_of_a_file_is_told_first() -> None:
    """What no waiver lifts stands before what one could."""
    found = [
        Finding("a.pt", FlawKind.PICKLE, "", "is a pickle"),
        Finding("a.pt", FlawKind.PICKLE_GLOBAL, "", "names x"),
    ]
    decided = decide_admission(FILES, found, Signatures(), policy(), DAY)
    assert isinstance(decided, Refuse)
    assert decided.findings[0].kind is FlawKind.PICKLE_GLOBAL
