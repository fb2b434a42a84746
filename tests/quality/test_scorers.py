"""What a scorer's answers are worth, which outputs it sees, and how its scores become streams."""

import math
import pathlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quality.streams import fact, healthy, on

from forestay.errors import UsageError
from forestay.fleet.spec import parse_spec, spec_from_json, spec_to_json
from forestay.fleet.spec_quality import ScorerUse
from forestay.quality.duplicates import Duplicates
from forestay.quality.noting import prompt_of
from forestay.quality.scorers.decide import (
    MOST_PAUSE_SECONDS,
    Allowance,
    decide_take,
    differs,
    draw_of,
    pause_seconds,
    read_described,
    read_scores,
    spent,
)
from forestay.quality.scorers.file import read_scorers
from forestay.quality.scorers.frozen import FrozenFault, digest_of, read_frozen, write_frozen
from forestay.quality.scorers.model import (
    Described,
    Failed,
    FrozenItem,
    Given,
    Item,
    Measure,
    Missing,
    Trouble,
    direction_of,
    names_of,
    scorer_of,
)
from forestay.quality.watching import Drifted, Rules, Watch
from forestay.telemetry.output_facts import OutputFact

JUDGE = Described("judge@1", "image", (Measure("agreement", 0, 1), Measure("noise", 0, 100, higher_is_better=False)))
SAID: dict[str, object] = {
    "name": "judge",
    "version": 1,
    "modality": "image",
    "scores": {"agreement": {"low": 0, "high": 1}, "noise": {"low": 0, "high": 100, "higher_is_better": False}},
}
USE = ScorerUse("judge@1", share=0.5, budget_seconds_per_hour=36.0)
SPEC = pathlib.Path(__file__).parents[2] / "examples" / "echo" / "model.yaml"


def test_a_scorer_that_says_what_it_is_is_read_as_it_says() -> None:
    """Name, version, kind of medium, and every score with its range and direction."""
    assert read_described(SAID, "judge@1") == JUDGE


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"version": 2},
        {"modality": "smell"},
        {"scores": {}},
        {"scores": {"Agreement": {"low": 0, "high": 1}}},
        {"scores": {"agreement": {"low": 1, "high": 1}}},
        {"scores": {"agreement": {"low": 0, "high": "1"}}},
        {"scores": {"agreement": {"low": 0, "high": math.inf}}},
        {"scores": {f"s{number}": {"low": 0, "high": 1} for number in range(9)}},
        {"scores": [1]},
    ],
    ids=str,
)
def test_a_scorer_that_is_another_or_promises_nothing_is_not_used(changed: Mapping[str, object]) -> None:
    """It is garbage, whatever it would score."""
    said = read_described({**SAID, **changed}, "judge@1")
    assert isinstance(said, Failed)
    assert said.trouble is Trouble.GARBAGE


def test_each_output_gets_its_scores_or_the_reason_why_not() -> None:
    """A number that is none, or out of its range, costs that output alone."""
    told = read_scores(
        JUDGE,
        [
            {"agreement": 0.5, "noise": 3},
            None,
            {"agreement": math.nan, "noise": 3},
            {"agreement": 1.5, "noise": 3},
        ],
        4,
    )
    assert told == [Given((0.5, 3.0)), Missing("abstained"), Missing("not_finite"), Missing("out_of_range")]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["agreement", "noise", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_whatever_a_scorer_answers_no_bad_number_comes_through(said: object) -> None:
    """Either the whole answer is garbage, or each score is a finite number in its range."""
    told = read_scores(JUDGE, said, 2)
    for score in [] if isinstance(told, Failed) else told:
        if isinstance(score, Given):
            assert 0 <= score.values[0] <= 1
            assert 0 <= score.values[1] <= 100


def test_a_judge_that_scores_a_frozen_output_otherwise_is_told() -> None:
    """By more than the tolerance, by abstaining, or by no longer abstaining."""
    known = FrozenItem("a.png", Item(b"", ""), (0.5, 10.0))
    silent = FrozenItem("b.png", Item(b"", ""), None)
    assert differs(JUDGE, known, Given((0.5009, 10.09)), 0.001) == ""
    assert "agreement is 0.502 and was 0.5" in differs(JUDGE, known, Given((0.502, 10.0)), 0.001)
    assert "noise" in differs(JUDGE, known, Given((0.5, 10.2)), 0.001)
    assert differs(JUDGE, known, Missing("abstained"), 0.001)
    assert differs(JUDGE, silent, Missing("abstained"), 0.001) == ""
    assert differs(JUDGE, silent, Missing("not_finite"), 0.001)
    assert differs(JUDGE, silent, Given((0.5, 10.0)), 0.001)


def test_a_scorer_works_within_its_budget_and_gets_it_back_over_the_hour() -> None:
    """36 s an hour: spent at once, it has a second again after 100 s."""
    first = decide_take(USE, None, 0.1, 1_000.0)
    assert (first.taken, first.allowance) == (True, Allowance(36.0, 1_000.0))
    after = spent(first.allowance, 40.0)
    assert decide_take(USE, after, 0.1, 1_010.0).reason == "over budget"
    assert decide_take(USE, after, 0.1, 1_500.0).taken
    assert decide_take(USE, after, 0.6, 1_500.0).reason == "not drawn"
    assert decide_take(USE, after, 0.1, 1e9).allowance.left_seconds == 36.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 600), st.floats(0, 30)), max_size=40))
def test_a_scorer_never_works_longer_than_its_budget_and_one_batch(steps: list[tuple[float, float, float]]) -> None:
    """Whatever comes when: all time spent is at most an hour's budget, what was gained since, and the last batch."""
    allowance, now, worked, last = None, 0.0, 0.0, 0.0
    for draw, pause, seconds in steps:
        now += pause
        choice = decide_take(USE, allowance, draw, now)
        allowance = choice.allowance
        if choice.taken:
            worked, last, allowance = worked + seconds, max(last, seconds), spent(allowance, seconds)
    assert worked <= 36.0 + now * 36.0 / 3_600 + last + 1e-6


def test_the_draw_is_even_and_the_same_whenever_it_is_asked() -> None:
    """By the request and the file alone; another key draws otherwise."""
    draws = [draw_of(str(number), 0, "judge@1", b"key") for number in range(2_000)]
    assert 0.45 < sum(draw < 0.5 for draw in draws) / 2_000 < 0.55
    assert draw_of("1", 0, "judge@1", b"key") == draws[1]
    assert draw_of("1", 0, "judge@1", b"other") != draws[1]
    assert draw_of("1", 1, "judge@1", b"key") != draws[1]


def test_a_scorer_that_fails_again_and_again_rests_longer_each_time() -> None:
    """From two seconds to five minutes; a changed judge an hour, since only a person can mend it."""
    crash = Failed(Trouble.CRASH, "")
    pauses = [pause_seconds(crash, failures) for failures in range(1, 30)]
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MOST_PAUSE_SECONDS
    assert pause_seconds(Failed(Trouble.CHANGED, ""), 1) == 3_600.0


def test_the_kind_of_a_stream_says_whose_scores_it_holds() -> None:
    """Names, scorer and directions are in it, so that nobody has to look them up."""
    assert names_of(JUDGE.kind) == ("agreement", "noise")
    assert scorer_of(JUDGE.kind) == "judge@1"
    assert (scorer_of("image"), names_of("hologram")) == ("", ())
    assert direction_of(JUDGE.kind, {"agreement": -1.0, "noise": 0.0}) == "worse"
    assert direction_of(JUDGE.kind, {"agreement": 1.0, "noise": -1.0}) == "better"
    assert direction_of(JUDGE.kind, {"agreement": 1.0, "noise": 1.0}) == "worse"
    assert direction_of(JUDGE.kind, {"agreement": 0.1}) == "otherwise"


def scored(number: int, value: float, replica: str) -> OutputFact:
    """An output with a score, as a worker notes it."""
    return fact(number, [value, 10.0 + value], kind=JUDGE.kind, **on(replica))


def test_scores_that_fall_on_one_replica_are_a_change_of_that_stream() -> None:
    """The detectors follow scores as they follow features, and streams of features do not mind them."""
    watch = Watch(Rules(reference_outputs=200, run_length_outputs=10_000))
    first = [one.features[0] / 1_000 for one in healthy(900, 5)]
    facts = [scored(number, value, "ab"[number % 2]) for number, value in enumerate(first)]
    assert watch.take(facts[:600]) == []
    ill = [scored(number, value - (0.003 if number % 2 else 0), "ab"[number % 2]) for number, value in enumerate(first)]
    events = watch.take(ill[600:])
    assert [(type(event), event.key.replica_id) for event in events] == [(Drifted, "b")] * len(events)
    assert events
    restored = Watch(watch.rules)
    restored.restore(watch.changed_parts())
    assert restored.evidence().keys() == watch.evidence().keys()


def test_a_score_is_no_duplicate_of_another() -> None:
    """Notes of scores carry no digest of content."""
    assert Duplicates().take([scored(number, 0.5, "a") for number in range(10)]) == []


def test_a_prompt_is_told_to_scorers_as_it_was_written() -> None:
    """And is empty where an input has none."""
    assert prompt_of({"prompt": "a red Three", "negative_prompt": "blur"}) == "a red Three"
    assert prompt_of({"seed": 3}) == ""
    assert prompt_of(None) == ""


def test_a_spec_asks_for_scorers_by_id() -> None:
    """With a share and a budget, and they survive being stored."""
    said = SPEC.read_text() + "quality: {scorers: [{id: judge@1, share: 0.5, budget_seconds_per_hour: 36}]}\n"
    spec = parse_spec(said, "model.yaml")
    assert spec.quality.scorers == (USE,)
    assert spec_from_json(spec_to_json(spec)).quality.scorers == (USE,)


@pytest.mark.parametrize(
    ("scorers", "mend"),
    [
        ("[{id: judge}]", "name and a version"),
        ("[{id: judge@1, share: 2}]", "share"),
        ("[{id: judge@1}, {id: judge@1}]", "named twice"),
        ("[{id: judge@1, program: x.py}]", "program"),
    ],
)
def test_a_spec_that_asks_for_scorers_wrongly_is_told_the_field(scorers: str, mend: str) -> None:
    """And what to write instead."""
    with pytest.raises(UsageError, match=mend):
        parse_spec(SPEC.read_text() + f"quality: {{scorers: {scorers}}}\n", "model.yaml")


def file_of(folder: pathlib.Path, entry: str) -> str:
    """Write a file of scorers with one entry, beside a program."""
    (folder / "judge").mkdir(exist_ok=True)
    (folder / "judge" / "scorer.py").write_text("")
    (folder / "scorers.yaml").write_text(f"scorers: [{entry}]\n")
    return str(folder / "scorers.yaml")


def test_the_file_of_scorers_names_programs_beside_it(tmp_path: pathlib.Path) -> None:
    """Folders are relative to the file, and so are interpreters."""
    (found,) = read_scorers(file_of(tmp_path, "{id: judge@1, folder: judge, python: bin/python, reads: [judge]}"))
    assert (found.scorer_id, found.folder, found.program) == ("judge@1", tmp_path / "judge", "scorer.py::Scorer")
    assert found.python == str(tmp_path / "bin/python")
    assert found.reads == (tmp_path / "judge",)
    assert read_scorers("") == []


@pytest.mark.parametrize(
    ("entry", "mend"),
    [
        ("{id: Judge, folder: judge}", "no id"),
        ("{id: judge@1, folder: judge, program: x}", "file.py::Class"),
        ("{id: judge@1, folder: nowhere}", "holds no scorer.py"),
        ("{id: judge@1, folder: judge, memory_mb: 1}", "memory_mb"),
        ("{id: judge@1, folder: judge, timeout_seconds: 0}", "timeout_seconds"),
        ("{id: judge@1, folder: judge, reads: [nowhere]}", "no folder of this machine"),
        ("{id: judge@1, folder: judge, key: x}", "plug-in-a-scorer"),
        ("{id: judge@1, folder: judge}, {id: judge@1, folder: judge}", "two scorers"),
    ],
)
def test_a_fault_in_the_file_of_scorers_is_told_with_its_place(tmp_path: pathlib.Path, entry: str, mend: str) -> None:
    """The variable, the field and the mend."""
    with pytest.raises(UsageError, match=mend) as told:
        read_scorers(file_of(tmp_path, entry))
    assert told.value.field == "FORESTAY_QUALITY_SCORERS"


def frozen_folder(folder: pathlib.Path) -> pathlib.Path:
    """A scorer's folder with a frozen set of one output."""
    (folder / "frozen").mkdir()
    (folder / "frozen" / "a.png").write_bytes(b"a picture")
    (folder / "frozen" / "frozen.json").write_text('{"items": [{"file": "a.png", "prompt": "x"}]}')
    (folder / "scorer.py").write_text("class Scorer: ...")
    return folder


def test_a_frozen_set_is_read_as_it_was_learned(tmp_path: pathlib.Path) -> None:
    """With the digest of the scorer's files, which any change of them changes."""
    folder = frozen_folder(tmp_path)
    with pytest.raises(FrozenFault, match="--learn"):
        read_frozen(folder, JUDGE)
    digest = write_frozen(folder, JUDGE, [Given((0.25, 4.0))])
    found = read_frozen(folder, JUDGE)
    assert (found.digest, found.items[0].scores, found.items[0].item) == (digest, (0.25, 4.0), Item(b"a picture", "x"))
    assert digest_of(folder) == digest
    (folder / "weights.npz").write_bytes(b"other")
    assert digest_of(folder) != digest


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("", "cannot be read"),
        ('{"items": []}', "0 items"),
        ('{"items": [{"file": "../scorer.py"}], "digest": "d"}', "no file beside it"),
        ('{"items": [{"file": "a.png"}], "digest": "d", "tolerance": 3}', "tolerance"),
        ('{"items": [{"file": "a.png", "scores": {"x": 1}}], "digest": "d"}', "learn it again"),
    ],
)
def test_a_frozen_set_that_is_none_says_what_to_mend(tmp_path: pathlib.Path, said: str, mend: str) -> None:
    """Without one a judge gives no scores that count."""
    folder = frozen_folder(tmp_path)
    (folder / "frozen" / "frozen.json").write_text(said)
    with pytest.raises(FrozenFault, match=mend):
        read_frozen(folder, JUDGE)
