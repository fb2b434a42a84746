"""`forestay safety bank` and `match` against the admin API and real stores."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from PIL import Image
from tests.cli.conftest import WATERMARK_KEY, Platform, Ran
from tests.safety.hashes.drawn import drawn

from forestay.clock import SystemClock
from forestay.media.decode import Decoder
from forestay.safety.hashes.report import CaseState, NewCase, Step, case_id_of
from forestay.safety.provenance.manifest import Made
from forestay.safety.provenance.stamp import Wishes
from forestay.safety.provenance.wiring import stamps_of
from forestay.settings import Safety

Forestay = Callable[..., Awaitable[Ran]]
CREATE = ("safety", "bank", "create", "marker-7f3a", "--source", "tests", "--category", "graphic_violence")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A drawn picture in a file."""
    path = tmp_path / "picture.png"
    Image.fromarray(drawn(3, 512, 384)).save(path)
    return path


async def test_a_bank_is_made_filled_looked_in_and_turned_off(
    forestay: Forestay, picture: Path, tmp_path: Path
) -> None:
    """The whole of an analyst's way; the picture itself never leaves the machine."""
    assert (await forestay(*CREATE)).status == 0
    again = await forestay(*CREATE)
    assert again.status == 1
    assert "choose another name" in again.err
    added = await forestay("safety", "bank", "add", "marker-7f3a", str(picture), "--reason", "known")
    assert "1 added" in added.out, added.err
    coded = tmp_path / "coded.jpg"
    Image.open(picture).resize((256, 192)).transpose(Image.Transpose.ROTATE_90).save(coded, quality=60)
    found = await forestay("safety", "match", str(coded), "--json")
    assert "'bank_id': 'marker-7f3a'" in str(found.json()["matches"]), found.err
    shown = await forestay("safety", "bank", "show", "marker-7f3a")
    assert "entries: 1" in shown.out
    off = await forestay("safety", "bank", "disable", "marker-7f3a", "--reason", "too wide")
    assert off.status == 0, off.err
    assert "not known" in (await forestay("safety", "match", str(coded))).out
    removed = await forestay("safety", "bank", "remove", "marker-7f3a", str(picture), "--reason", "appealed")
    assert "1 removed" in removed.out
    listed = await forestay("safety", "bank", "list")
    assert "marker-7f3a" in listed.out


async def test_a_list_is_imported_exported_and_looked_in_without_a_platform(
    forestay: Forestay, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faulty lines are told and exit 1; with --strict they stop everything; a match needs no platform."""
    await forestay(*CREATE)
    hash_ = str((await forestay("safety", "match", str(picture), "--json")).json()["hash"])
    given = tmp_path / "list.csv"
    given.write_text(f"signal_type,signal_str,collab,category,tags\npdq,{hash_},c,POSITIVE_CLASS,t\npdq,zz,c,,\n")
    strict = await forestay("safety", "bank", "import", "marker-7f3a", str(given), "--reason", "weekly", "--strict")
    assert strict.status == 2
    assert "nothing was imported" in strict.err
    done = await forestay("safety", "bank", "import", "marker-7f3a", str(given), "--reason", "weekly")
    assert done.status == 1
    assert f"{given}:3" in done.err
    assert "1 added" in done.out
    outs = [tmp_path / "out.csv", tmp_path / "out.json"]
    for out in outs:
        assert (await forestay("safety", "bank", "export", "marker-7f3a", "--out", str(out))).status == 0
    monkeypatch.setenv("FORESTAY_URL", "http://127.0.0.1:9")  # where no platform answers
    for out in outs:
        found = await forestay("safety", "match", str(picture), "--against", str(out), "--json")
        assert hash_ in str(found.json()["matches"]), found.err


async def test_a_callers_key_reads_no_bank(
    platform: Platform, forestay: Forestay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of hashes tells what is looked for: it takes the permission for safety."""
    await forestay(*CREATE)
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    for words in (("bank", "show", "marker-7f3a"), ("match", "0" * 64)):
        refused = await forestay("safety", *words)
        assert refused.status == 1
        assert "ADMIN" in refused.err


async def test_what_is_not_there_or_no_hash_is_told_with_the_mend(forestay: Forestay, tmp_path: Path) -> None:
    """An absent bank, an absent file, a flat picture, a file that is no picture."""
    absent = await forestay("safety", "bank", "show", "absent")
    assert absent.status == 1
    assert "forestay safety bank list" in absent.err
    missing = await forestay("safety", "match", str(tmp_path / "missing.png"))
    assert missing.status == 2
    assert "cannot be read" in missing.err
    flat, text = tmp_path / "flat.png", tmp_path / "text.png"
    Image.new("RGB", (90, 90), "white").save(flat)
    text.write_text("no picture")
    await forestay(*CREATE)
    for path, told in ((flat, "too little structure"), (text, "file")):
        refused = await forestay("safety", "bank", "add", "marker-7f3a", str(path), "--reason", "r")
        assert refused.status in {1, 2}
        assert told in refused.err


async def test_made_by_us_tells_of_every_layer_and_says_no_more_than_it_knows(
    platform: Platform, forestay: Forestay, picture: Path, tmp_path: Path
) -> None:
    """A stranger's picture, then the same one after it was released."""
    small = tmp_path / "small.jpg"
    Image.open(picture).resize((320, 240)).save(small, quality=92)
    unknown = await forestay("safety", "made-by-us", str(small))
    assert unknown.status == 0, unknown.err
    assert "does not show that we did not" in unknown.out
    settings = Safety(provenance_dir=str(tmp_path / "provenance"), watermark_key=WATERMARK_KEY)
    decoder = Decoder()
    stamps = stamps_of(settings, decoder, platform.database, SystemClock().now())
    out = tmp_path / "released.jpg"
    made = Made("r-7f3a", "acme/pictures", "rev-7", "m" * 32, SystemClock().now())
    with small.open("rb") as source, out.open("w+b") as released:
        await stamps.put(source, released, "image/jpeg", made, Wishes(watermark=True))
    await decoder.close()
    told = await forestay("safety", "made-by-us", str(out))
    assert [line.partition(",")[0] for line in told.out.splitlines()[1::2]] == ["manifest", "watermark", "fingerprint"]
    assert "r-7f3a" in told.out
    assert "acme/pictures" in told.out
    found = (await forestay("safety", "made-by-us", str(out), "--json")).json()
    assert found["made_by_us"] is True
    part = tmp_path / "part.png"
    Image.open(out).crop((90, 60, 250, 180)).save(part)
    cropped = await forestay("safety", "made-by-us", str(part))
    assert cropped.out.startswith(("nothing here shows", "possibly made by us"))
    missing = await forestay("safety", "made-by-us", str(tmp_path / "missing.png"))
    assert missing.status == 2


async def test_cases_are_listed_with_their_proof_and_an_undelivered_one_is_told_anew(
    platform: Platform, forestay: Forestay
) -> None:
    """A marker's case: what a person sees of it, and the one thing that a person may do."""
    assert "no cases" in (await forestay("safety", "report", "list")).out
    now = SystemClock().now()
    name = case_id_of("r-7f3a", "prompt", 7)
    await platform.ports.reports.open(NewCase(name, 7, "marker-7f3a", "minors", 3, "r-7f3a", "acme", "prompt", now))
    assert name in (await forestay("safety", "report", "list", "--state", "matched")).out
    early = await forestay("safety", "report", "retry", name, "--reason", "again")
    assert early.status == 1
    assert "no undelivered case" in early.err
    for state in (CaseState.BLOCKED, CaseState.PRESERVED, CaseState.UNDELIVERED):
        await platform.database.execute("UPDATE hash_reports SET due_at = now()")
        (case,) = await platform.ports.reports.claim(1, 60.0)
        assert await platform.ports.reports.settle(case, Step(state, now, "the hook is away"))
    done = await forestay("safety", "report", "retry", name, "--reason", "their hook is back")
    assert done.status == 0, done.err
    (row,) = cast("list[dict[str, object]]", (await forestay("safety", "report", "list", "--json")).json())
    assert (row["state"], row["tries"], row["request_id"]) == ("preserved", 0, "r-7f3a")
