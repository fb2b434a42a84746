"""Which SLOs a running platform has: files followed as they change, models' specs, and the defaults for the rest."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.fleet.model import ModelEntry
from forestay.fleet.spec import parse_spec
from forestay.fleet.spec_slos import TIMED as TIMED_IN_SPECS
from forestay.fleet.spec_slos import Indicator
from forestay.ids import ModelId, TenantId
from forestay.slo.defaults import PLATFORM, id_of_model
from forestay.slo.loop import uncounted
from forestay.slo.model import TIMED, CalendarUnit, Measure, Sli, SliKind, SloId, Subject, SubjectKind, Window
from forestay.slo.named import NamedSlos
from forestay.slo.slo_folder import MOST_FILES, FileRead, SloFolder
from forestay.slo.sources import DEFAULT, decide_slos
from forestay.telemetry.metrics import SLO_FILES_BROKEN, Metrics

SPEC = """\
version: 0
model: {model}
description: Draws digits.
owner: {{team: vision, contact: "#vision"}}
licence: Apache-2.0
host: {{kind: http_server, url: "http://digits.invalid"}}
endpoints: [{{path: /}}]
"""
PROMISES = """\
slos:
  - {objective: 99.9, window: month}
  - {objective: 95, indicator: latency, threshold_seconds: 5, name: fast, page: false}
"""
FILE = """\
version: 1
slos:
  - id: digits-up
    subject: {model: acme/digits}
    objective: 99.5
    sli: {kind: ratio, measure: availability}
    owner: {team: vision}
"""
OPENSLO = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: gold
  annotations: {forestay.dev/subject: "tenant:gold", forestay.dev/owner-team: sales}
spec:
  service: gold
  indicator:
    metadata: {name: up}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: Forestay, spec: {measure: availability}}}
        total: {metricSource: {type: Forestay, spec: {measure: availability}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"""


def entry(model: str = "acme/digits", promises: str = "") -> dict[ModelId, ModelEntry]:
    """A fleet of one model."""
    spec = parse_spec(SPEC.format(model=model) + promises, "model.yaml")
    return {ModelId(model): ModelEntry(ModelId(model), TenantId("acme"), "shared", spec)}


class Told:
    """What is told of files, in memory."""

    def __init__(self) -> None:
        self.files: Sequence[FileRead] = ()

    async def tell_files(self, files: Sequence[FileRead]) -> None:
        """Replace it."""
        self.files = files


async def fleet() -> dict[ModelId, ModelEntry]:
    """A fleet whose one model promises nothing."""
    return entry()


def write(path: pathlib.Path, text: str, moment: int) -> None:
    """Write a file as of another moment, so that it is seen as changed whatever the clock's grain."""
    path.write_text(text)
    os.utime(path, (moment, moment))


def test_a_models_spec_may_promise_what_its_owner_wants() -> None:
    """Objective, indicator, window; its own availability replaces the default."""
    found = {one.slo_id: one for one in decide_slos((), entry(promises=PROMISES))}
    up, fast = found[SloId("acme-digits-availability")], found[SloId("acme-digits-fast")]
    assert (up.objective, up.window, up.origin) == (0.999, Window(calendar=CalendarUnit.MONTH), "spec of acme/digits")
    assert fast.sli == Sli(SliKind.THRESHOLD, Measure.LATENCY, 5.0)
    assert (fast.owner_team, fast.alerting.page) == ("vision", False)
    assert len(found) == 2 + len(PLATFORM) - 1  # nobody judges what it gives out: no SLO on releases


@pytest.mark.parametrize(("per_second", "slice_minutes"), [(2.0, 5), (1 / 600, 15), (1 / 3600, 60)])
def test_a_models_spec_may_promise_a_throughput(per_second: float, slice_minutes: int) -> None:
    """In the shortest slices of which each promises at least one request."""
    promise = f"{{objective: 99, indicator: throughput, per_second: {per_second}, threshold_seconds: 90}}"
    [found] = [one for one in decide_slos((), entry(promises=f"slos: [{promise}]")) if one.sli.per_second is not None]
    assert found.slo_id == "acme-digits-throughput"
    assert found.sli == Sli(
        SliKind.TIME_SLICE, Measure.THROUGHPUT, 90.0, slice_minutes, slice_objective=0.95, per_second=per_second
    )


def test_releases_are_promised_where_somebody_judges_them() -> None:
    """Of the whole platform where every model has a policy, else of each that has one; never of one that has none."""
    guarded, bare = entry("acme/guarded", "safety: {policy: strict}\n"), entry("acme/bare")

    def promised(fleet: dict[ModelId, ModelEntry]) -> list[tuple[str, str]]:
        found = [one for one in decide_slos((), fleet) if one.sli.measure is Measure.SAFETY]
        assert {one.objective for one in found} <= {0.9999}
        return [(one.slo_id, one.subject.name) for one in found]

    assert promised(guarded) == [("forestay-safety", "")]
    assert promised({**guarded, **bare}) == [("acme-guarded-safety", "acme/guarded")]
    assert promised(bare) == []


def test_every_indicator_of_a_spec_is_counted() -> None:
    """What a spec may promise has data, and needs a threshold exactly where the engine does."""
    assert not {Measure(item.value) for item in Indicator} & uncounted()
    assert {item.value for item in TIMED_IN_SPECS} == {item.value for item in Indicator} & {m.value for m in TIMED}


def test_a_files_slo_replaces_the_default_of_its_subject_and_measure_only() -> None:
    """And the same id in a spec."""
    named = dataclasses.replace(slo(), origin="slos.yaml:3")
    found = {one.slo_id: one.origin for one in decide_slos([named], entry())}
    assert found[SloId("digits")] == "slos.yaml:3"
    assert id_of_model(ModelId("acme/digits")) not in found
    assert set(found.values()) == {"slos.yaml:3", DEFAULT}
    own = dataclasses.replace(named, slo_id=SloId("acme-digits-fast"), objective=0.5)
    assert {one.objective for one in decide_slos([own], entry(promises=PROMISES)) if one.slo_id == own.slo_id} == {0.5}


@given(st.lists(st.sampled_from(["a/b-c", "a-b/c", "a/b", "A/b"]), unique=True), st.booleans())
def test_no_model_is_without_an_slo_and_no_id_is_there_twice(names: list[str], promised: bool) -> None:
    """Whatever models are called: `a/b-c` and `a-b/c` would have one id."""
    fleet = {name: one for item in names for name, one in entry(item, PROMISES if promised else "").items()}
    found = decide_slos((), fleet)
    assert len({one.slo_id for one in found}) == len(found)
    watched = {one.subject.name for one in found if one.sli.measure is Measure.AVAILABILITY}
    assert watched == set(names)
    assert decide_slos((), dict(reversed(fleet.items()))) == found


async def test_a_file_is_followed_and_a_broken_one_keeps_what_was_last_good(tmp_path: pathlib.Path) -> None:
    """Told with file, line, field and mend; the metric says so until it is mended."""
    path, told, metrics = tmp_path / "slos.yaml", Told(), Metrics()
    write(path, FILE, 1)
    named = NamedSlos(str(path), fleet, told, metrics)
    first = {one.slo_id: one for one in await named.slos()}[SloId("digits-up")]
    assert (first.objective, first.origin) == (0.995, "slos.yaml:3")
    write(path, FILE.replace("99.5", "150"), 2)
    assert first in await named.slos()
    [file] = told.files
    assert [fault.partition(" (")[0] for fault in file.faults] == [
        "slos.yaml:5: slos.0.objective: input should be less than 100"
    ]
    assert metrics.value(SLO_FILES_BROKEN) == 1
    path.unlink()
    assert first in await named.slos()
    assert "cannot be read: No such file" in told.files[0].faults[0]
    write(path, FILE.replace("99.5", "99"), 3)
    assert {one.objective for one in await named.slos() if one.slo_id == "digits-up"} == {0.99}
    assert (told.files[0].faults, metrics.value(SLO_FILES_BROKEN)) == ((), 0)


async def test_in_a_folder_one_broken_file_harms_no_other(tmp_path: pathlib.Path) -> None:
    """Ours and OpenSLO's beside one another; a file taken away takes its SLOs with it."""
    write(tmp_path / "a.yaml", FILE, 1)
    write(tmp_path / "b.yml", "version: 1\nslos: [\n", 1)
    write(tmp_path / "c.yaml", OPENSLO, 1)
    write(tmp_path / "notes.txt", "no SLO", 1)
    told = Told()
    named = NamedSlos(str(tmp_path), fleet, told, Metrics())
    found = {one.slo_id: one for one in await named.slos()}
    assert found[SloId("gold")].subject == Subject(SubjectKind.TENANT, "gold")
    assert (found[SloId("gold")].origin, found[SloId("digits-up")].origin) == ("c.yaml:4", "a.yaml:3")
    assert [(file.name, len(file.slos), bool(file.faults)) for file in told.files] == [
        ("a.yaml", 1, False), ("b.yml", 0, True), ("c.yaml", 1, False),
    ]  # fmt: skip
    (tmp_path / "c.yaml").unlink()
    assert SloId("gold") not in {one.slo_id for one in await named.slos()}


async def test_an_id_in_two_files_is_told_and_the_first_file_holds(tmp_path: pathlib.Path) -> None:
    """By name of the files, so that every controller decides alike."""
    write(tmp_path / "a.yaml", FILE, 1)
    write(tmp_path / "b.yaml", FILE.replace("99.5", "50"), 1)
    told = Told()
    found = {one.slo_id: one for one in await NamedSlos(str(tmp_path), fleet, told, Metrics()).slos()}
    assert found[SloId("digits-up")].objective == 0.995
    assert told.files[1].faults == ("b.yaml:3: id: digits-up is in a.yaml:3 too, which holds; rename one",)


async def test_provenance_has_an_objective_only_where_a_policy_asks_for_it() -> None:
    """A fleet whose files bear no manifest has nothing that could burn; a file may promise it all the same."""
    asked = False

    async def signs() -> bool:
        return asked

    named = NamedSlos("", fleet, Told(), Metrics(), signs)
    measures = {one.sli.measure for one in await named.slos()}
    assert Measure.PROVENANCE not in measures
    asked = True
    [found] = [one for one in await named.slos() if one.sli.measure not in measures]
    assert (found.slo_id, found.subject.kind, found.objective) == ("forestay-provenance", SubjectKind.PLATFORM, 0.999)
    assert found.policy == ()


async def test_without_files_the_defaults_hold() -> None:
    """Nothing has to be set up."""
    found = await NamedSlos("", fleet, Told(), Metrics()).slos()
    assert {one.origin for one in found} == {DEFAULT}


def test_what_cannot_be_a_file_of_slos_is_told_and_not_read(tmp_path: pathlib.Path) -> None:
    """Bytes that are no text, a file that is too large, more files than are followed."""
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "b.yaml").write_text("#" * 300_000)
    folder = SloFolder(str(tmp_path))
    assert folder.follow()
    assert not folder.follow()
    binary, large = folder.reads()
    assert binary.faults == ("a.yaml:1: is not UTF-8",)
    assert "larger than 256 KiB" in large.faults[0]
    for number in range(MOST_FILES):
        (tmp_path / f"{number}.yaml").touch()
    assert folder.follow()
    assert any("at most 200" in fault for file in folder.reads() for fault in file.faults)


@pytest.mark.parametrize(
    ("promises", "words"),
    [
        ("slos: [{objective: 101}]", "slos.0.objective: input should be less than 100"),
        ("slos: [{objective: 99, indicator: latency}]", "latency needs `threshold_seconds`"),
        ("slos: [{objective: 99, threshold_seconds: 5}]", "availability has no `threshold_seconds`"),
        ("slos: [{objective: 99, indicator: throughput, threshold_seconds: 5}]", "throughput needs `per_second`"),
        ("slos: [{objective: 99, indicator: throughput, per_second: 5}]", "throughput needs `threshold_seconds`"),
        ("slos: [{objective: 99, per_second: 5}]", "availability has no `per_second`"),
        ("slos: [{objective: 99, window: 30}]", "slos.0.window: "),
        ("slos: [{objective: 99, window: 3m}]", "must be from 1h to 366d"),
        ("slos: [{objective: 99}, {objective: 98}]", "two SLOs are called availability"),
        ("slos: [{objectiv: 99}]", "did you mean `objective`?"),
    ],
)
def test_a_fault_in_a_specs_promises_is_told_with_its_mend(promises: str, words: str) -> None:
    """Bounds, thresholds, windows, doubles and names."""
    with pytest.raises(Exception, match=r"model\.yaml") as caught:
        entry(promises=promises)
    assert words in str(caught.value)
