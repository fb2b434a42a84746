"""The threat model names what stands against each threat, and a test for each; the two agree in both directions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/explanation/threat-model.md"
TESTS = ROOT / "tests"
ID = re.compile(r"API\d{1,2}:2023|ML\d\d:2023|AML\.T\d{4}(?:\.\d{3})?")
NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
EXPECTED = {f"API{number}:2023" for number in range(1, 11)} | {f"ML{number:02}:2023" for number in range(1, 11)}

Proof = tuple[str, str]  # threat id, test


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the table below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and ID.search(cells[0]):
            yield cells


def mapped() -> set[Proof]:
    """Return every (threat, test) that the page claims."""
    found: set[Proof] = set()
    for cells in rows("What stands against what"):
        tests = NODE.findall(cells[-1])
        assert tests, f"no test stands in the row of {cells[0]}"
        found |= {(threat, f"{file}::{name}") for threat in ID.findall(cells[0]) for file, name in tests}
    return found


def marked() -> set[Proof]:
    """Return every (threat, test) that a test's own marker claims."""
    found: set[Proof] = set()
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.threat" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(ROOT)}::{node.name}"
                found |= {(threat, name) for threat in _threats_of(node)}
    return found


def _threats_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.threat":
            for argument in decorator.args:
                assert isinstance(argument, ast.Constant)
                yield str(argument.value)


def test_the_map_and_the_tests_agree() -> None:
    """What the page says is proved is marked so in the tests, and what the tests prove is on the page."""
    assert mapped() == marked()


def test_every_threat_of_the_lists_is_answered_or_declined_with_a_reason() -> None:
    """Nothing of the OWASP lists is passed over in silence."""
    answered = {threat for threat, _ in mapped()}
    declined = {threat for cells in rows("What we do not answer") for threat in ID.findall(cells[0])}
    assert answered | declined >= EXPECTED
    assert all(len(cells) >= 2 and cells[-1] for cells in rows("What we do not answer"))


def test_every_threat_named_is_one_that_exists() -> None:
    """Ids are those of OWASP API Security 2023, OWASP Machine Learning Security 2023 and MITRE ATLAS."""
    ours = {threat for threat, _ in mapped()}
    assert {threat for threat in ours if not threat.startswith("AML.")} <= EXPECTED
