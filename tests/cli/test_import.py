"""Many models at once: a folder of apps, a list of endpoints, and what is left of each."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from tests.cli.broken_models import APP
from tests.cli.conftest import Ran

from forestay.errors import UsageError
from forestay.fleet import spec_file
from forestay.fleet.spec_import import read_rows, render_provider
from forestay.fleet.spec_template import Identity

Forestay = Callable[..., Awaitable[Ran]]
WORDS = ("--team", "vision", "--contact", "#vision", "--escalation", "vision on call", "--licence", "MIT")
TABLE = """model,url,key_secret,endpoints,description
acme/clouds,https://queue.provider.invalid/clouds,PROVIDER_KEY,/ /edit,Paints clouds.
acme/stars,https://queue.provider.invalid/stars,PROVIDER_KEY,,
"""


async def test_every_app_of_a_folder_gets_a_spec_and_what_is_left_is_told(
    forestay: Forestay, tmp_path: pathlib.Path
) -> None:
    """What was there is left as it was; files without an app are passed over; run again it changes nothing."""
    for name in ("one", "two", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(APP)
    (tmp_path / "two" / "other.py").write_text(APP.replace("Painter", "Drawer"))
    (tmp_path / "two" / "words.py").write_text("x = 1\n")
    (tmp_path / "two" / "broken.py").write_text("def (:\n")
    made = await forestay("model", "import", tmp_path, *WORDS, "--json")
    specs = cast("list[dict[str, object]]", made.json()["specs"])
    files = [str(pathlib.Path(str(item["file"])).relative_to(tmp_path)) for item in specs]
    assert files == ["one/model.yaml", "two/app-Painter.yaml", "two/other-Drawer.yaml"]
    assert all("intended_use" in str(item["to_do"]) for item in specs)
    assert all(len(cast("list[str]", item["to_do"])) == 1 for item in specs)
    again = await forestay("model", "import", tmp_path, *WORDS)
    assert again.out.count("was there") == 3
    assert "3 specs, 0 whole" in again.out


async def test_a_list_of_endpoints_becomes_specs_of_a_provider(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """What neither the row nor the command says is left to a person."""
    (tmp_path / "list.csv").write_text(TABLE)
    ran = await forestay("model", "import", tmp_path / "list.csv", *WORDS, "--intended-use", "skies", "--json")
    whole, open_one = cast("list[dict[str, object]]", ran.json()["specs"])
    assert whole["to_do"] == []
    assert "description" in str(open_one["to_do"])
    spec = spec_file.parse((tmp_path / "acme-clouds.yaml").read_text(), "acme-clouds.yaml")
    assert [item.path for item in spec.endpoints] == ["/", "/edit"]
    assert (spec.host.kind, spec.host.key_secret, spec.safety.policy) == ("provider", "PROVIDER_KEY", "standard")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "model,url\nacme/x,https://a.invalid\n", "key_secret is missing"),
        ("a.csv", "model,url,key_secret,colour\na/x,https://a.invalid,K,red\n", "'colour' is no field; known are"),
        ("a.csv", TABLE.replace("acme/stars", "acme/clouds"), "give one of them another `model`"),
        ("a.csv", "model,url,key_secret\nacme/x\n", "not as many values"),
        ("a.csv", "", "1 to 2,000 rows"),
        ("a.yaml", "model: acme/x\n", "a list of mappings"),
    ],
)
def test_a_wrong_row_is_told_with_what_to_write(name: str, text: str, told: str) -> None:
    """By its number, before anything is written."""
    with pytest.raises(UsageError, match=told):
        read_rows(text, name)


def test_a_row_may_be_written_in_yaml_and_cannot_break_out_of_its_field() -> None:
    """Names become file names without a path in them, texts stay texts."""
    listed = '- {model: "../a", url: "https://a.invalid", key_secret: K, description: "x\\nhost: {}", pool: "c, d: 9"}'
    [row] = read_rows(listed, "a.yaml")
    made = render_provider(row, Identity())
    assert "/" not in made.file
    assert "\nhost: {}" not in made.text
    assert '"c, d: 9"' in made.text
