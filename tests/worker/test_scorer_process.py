"""Real scorer processes: what they are told and see, and what becomes of those that crash, hang or lie."""

import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache

import pytest

from forestay.quality.scorers.file import ScorerEntry
from forestay.quality.scorers.model import Described, Failed, Given, Item, Missing, Score, Trouble
from forestay.worker.hosts.confinement import Machine, probe_machine
from forestay.worker.scorer_process import PROGRAM, ScorerPlace, ScorerProcess

JUDGE = """
import os, time

class Judge:
    name, version, modality = "judge", 1, "image"
    scores = {"seen": {"low": 0, "high": 1e6}}

    def setup(self):
        if DO == "import":
            import a_library_that_is_not_there

    def score(self, items):
        print("a printed prompt:", items[0].prompt)
        if DO == "crash":
            os._exit(3)
        if DO == "raise":
            raise ValueError("words about " + items[0].prompt)
        if DO == "hang":
            time.sleep(60)
        if DO == "memory":
            held = bytearray(400 * 1024 * 1024)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(60)
        if DO == "short":
            return []
        if DO == "environment":
            return [{"seen": len([name for name in os.environ if "SECRET" in name or name.startswith("FORESTAY")])}]
        if DO == "write":
            try:
                items[0].path.with_name("more").write_bytes(b"x")
                return [{"seen": 1}]
            except OSError:
                return [{"seen": 0}]
        return [None if item.prompt == "nothing" else {"seen": len(item.path.read_bytes())} for item in items]
"""


@cache
def machine() -> Machine:
    """What this machine allows; asked once."""
    return probe_machine()


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A short folder that other users may pass through, as a worker's own."""
    name = pathlib.Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))
    name.chmod(0o755)
    yield name
    shutil.rmtree(name, ignore_errors=True)


def entry_of(folder: pathlib.Path, do: str = "score", **changed: object) -> ScorerEntry:
    """A scorer that does one thing."""
    own = folder / "judge"
    own.mkdir(exist_ok=True)
    (own / "scorer.py").write_text(JUDGE + f"\nDO = {do!r}\n")
    own.chmod(0o755)
    values: dict[str, object] = {"scorer_id": "judge@1", "folder": own, "program": "scorer.py::Judge", "memory_mb": 200}
    return ScorerEntry(**{**values, "timeout_seconds": 10.0, **changed})  # type: ignore[arg-type]


@asynccontextmanager
async def started(folder: pathlib.Path, entry: ScorerEntry) -> AsyncIterator[tuple[ScorerProcess, Described | Failed]]:
    """Start a scorer and end it; nothing of it is left."""
    secrets = {"FORESTAY_INTERNAL_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/usr/bin"}
    process = ScorerProcess(entry, ScorerPlace(folder / "run", secrets, allow_unisolated=True, machine=machine()))
    try:
        yield process, await process.start()
    finally:
        await process.stop()
    assert not (folder / "run").exists()


async def asked(folder: pathlib.Path, do: str, *items: Item, **changed: object) -> list[Score] | Failed:
    """What a scorer that does one thing says of outputs."""
    async with started(folder, entry_of(folder, do, **changed)) as (process, described):
        assert isinstance(described, Described), described
        answer = await process.score(items or [Item(b"picture", "a secret wish")])
        return answer if isinstance(answer, Failed) else list(answer)


async def test_a_scorer_gets_files_and_words_and_gives_scores(folder: pathlib.Path) -> None:
    """One answer for each output, in order, batch after batch; it may have nothing to say."""
    async with started(folder, entry_of(folder)) as (process, described):
        assert isinstance(described, Described)
        assert described.kind == "score:judge@1:seen+"
        answer = await process.score([Item(b"four", ""), Item(b"x", "nothing"), Item(b"sixsix", "")])
        assert answer == [Given((4.0,)), Missing("abstained"), Given((6.0,))]
        assert await process.score([Item(b"again", "")]) == [Given((5.0,))]


@pytest.mark.threat("AML.T0010", "AML.T0029")
async def test_nothing_of_the_worker_reaches_a_scorer(folder: pathlib.Path) -> None:
    """None of its variables; and no file beside those it was given can be written."""
    assert await asked(folder, "environment") == [Given((0.0,))]
    seen = await asked(folder, "write")
    assert os.geteuid() != 0 or seen == [Given((0.0,))]


@pytest.mark.threat("AML.T0010", "AML.T0029")
@pytest.mark.parametrize(
    ("do", "changed", "trouble"),
    [
        ("crash", {}, Trouble.CRASH),
        ("raise", {}, Trouble.CRASH),
        ("hang", {"timeout_seconds": 0.3}, Trouble.HANG),
        ("memory", {"memory_mb": 100}, Trouble.MEMORY),
        ("short", {}, Trouble.GARBAGE),
    ],
)
async def test_whatever_a_scorer_does_there_is_a_reason_and_no_prompt_in_it(
    folder: pathlib.Path, do: str, changed: dict[str, object], trouble: Trouble
) -> None:
    """A crash, a hang, too much memory and an answer that is none are values; the words hold nothing of the request."""
    answer = await asked(folder, do, **changed)
    assert isinstance(answer, Failed)
    assert (answer.trouble, "secret wish" in answer.words) == (trouble, False)


@pytest.mark.slow  # three processes, one after another
async def test_a_scorer_that_cannot_start_says_why(folder: pathlib.Path) -> None:
    """A missing library, a missing interpreter, another name."""
    async with started(folder, entry_of(folder, "import")) as (_, told):
        assert isinstance(told, Failed)
        assert told.trouble is Trouble.NOT_STARTED
        assert "a_library_that_is_not_there" in told.words
    async with started(folder, entry_of(folder, python="/nowhere/python")) as (_, told):
        assert isinstance(told, Failed)
        assert told.trouble is Trouble.NOT_STARTED
    async with started(folder, entry_of(folder, scorer_id="judge@2")) as (_, told):
        assert isinstance(told, Failed)
        assert "judge@1" in told.words


def test_the_program_needs_nothing_but_the_standard_library() -> None:
    """It runs under interpreters that know nothing of Forestay."""
    imported = [line.split()[1] for line in PROGRAM.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


NO_CUDA = "class cuda:\n @staticmethod\n def is_available(): return False\ndef device(name): return name\n"
PYIQA = """
class Metric:
    lower_better = False
    def __call__(self, path):
        return Tensor(71.5)
class Tensor(float):
    def item(self):
        return float(self)
def create_metric(name, device):
    assert name == "musiq"
    return Metric()
"""
VBENCH = """
import json, pathlib
class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.out = output_path
    def evaluate(self, videos_path, name, dimension_list, mode):
        assert mode == "custom_input"
        films = [str(path) for path in pathlib.Path(videos_path).iterdir()]
        rows = {}
        for one in dimension_list:
            value = 72.5 if one == "imaging_quality" else 0.5
            rows[one] = [value, [{"video_path": film, "video_results": value} for film in films]]
        pathlib.Path(self.out, name + "_eval_results.json").write_text(json.dumps(rows))
"""
STAND_INS = {
    "pyiqa": ("image", {"pyiqa.py": PYIQA, "torch.py": NO_CUDA}, [71.5]),
    "vbench": ("video", {"vbench.py": VBENCH, "torch.py": NO_CUDA}, [0.5, 0.5, 0.5, 0.5, 0.5, 0.725]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAND_INS)
async def test_the_adapters_call_their_libraries_as_those_are_called(folder: pathlib.Path, name: str) -> None:
    """Against stand-ins, since no model hub can be reached here: the shape of the call, and of the answer, no more."""
    modality, files, scores = STAND_INS[name]
    libraries = folder / "libraries"
    libraries.mkdir()
    libraries.chmod(0o755)
    for file, text in files.items():
        (libraries / file).write_text(text)
        (libraries / file).chmod(0o644)
    own = folder / name
    shutil.copytree(pathlib.Path(__file__).parents[2] / "examples" / "scorers" / name, own)
    entry = ScorerEntry(
        {"pyiqa": "pyiqa-musiq@1"}.get(name, f"{name}@1"), own, "scorer.py::Scorer", reads=(libraries,),
        env={"PYTHONPATH": str(libraries), "VBENCH_INFO": "info.json"}, memory_mb=300,
    )  # fmt: skip
    async with started(folder, entry) as (process, described):
        assert isinstance(described, Described), described
        assert described.modality == modality
        answer = await process.score([Item(b"file", "")])
        assert not isinstance(answer, Failed), answer
        assert answer == [Given(tuple(scores))]
