"""Admission at deploy and the artefact commands: what is refused, what is told, and what the log keeps."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import datetime as dt
import hashlib
import json
import pathlib
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import pytest
from tests.artefacts import weights
from tests.artefacts.pickles import called_stacked, tar, torch_zip
from tests.cli.conftest import Platform, Ran
from tests.cli.test_commands import APP, SPEC, call

from forestay.telemetry.metrics import ARTEFACT_FINDINGS

Forestay = Callable[..., Awaitable[Ran]]
UNTIL = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)).isoformat()  # noqa: TID251 - the platform's own clock


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    """The spec of a small real fal.App with weights."""
    folder = tmp_path / "models" / "echo"
    (folder / "weights").mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "weights" / "model.safetensors").write_bytes(weights.safetensors())
    (folder / "model.yaml").write_text(SPEC)
    return folder / "model.yaml"


def waiver(*files: str, until: str = UNTIL) -> str:
    """Return the section of a spec that waives pickles."""
    return f"artefacts: {{allow_pickle: {{files: {json.dumps(files)}, reason: not yet converted, until: {until}}}}}\n"


async def admin(platform: Platform, files: Mapping[str, bytes], **spec: object) -> tuple[int, dict[str, object]]:
    """Send a bundle and its spec past the command line, as a stranger would."""
    data = tar(dict(files))
    digest = hashlib.sha256(data).hexdigest()
    await call(platform, "PUT", f"/bundles/{digest}", body=data)
    values = {
        "version": 0,
        "model": "acme/echo",
        "description": "Echoes.",
        "owner": {"team": "t", "contact": "c"},
        "licence": "Apache-2.0",
        "host": {"kind": "fal_app", "app": "app.py::Echo"},
        "endpoints": [{"path": "/"}],
        **spec,
    }
    body = json.dumps({"spec": values, "digest": digest}).encode()
    return await call(platform, "POST", "/models", body=body)


async def test_a_pickle_is_refused_before_anything_is_sent(
    forestay: Forestay, platform: Platform, model: pathlib.Path
) -> None:
    """The answer names the file, the finding and the mend; exit 2; no bundle is stored."""
    (model.parent / "weights" / "old.pt").write_bytes(torch_zip())
    ran = await forestay("deploy", str(model))
    assert ran.status == 2
    assert "weights/old.pt" in ran.err
    assert "artefacts.allow_pickle" in ran.err
    assert (await platform.ports.fleet.load()).models == {}


async def test_the_platform_refuses_what_is_sent_past_the_command_line(platform: Platform) -> None:
    """422 with one line a finding; counted; nothing is registered."""
    files = {"app.py": APP.encode(), "w.pkl": called_stacked("os system"), "m.bin": bytes(300)}
    status, answer = await admin(platform, files)
    assert status == 422
    detail = cast("list[dict[str, object]]", answer["detail"])
    told = [str(item["msg"]) for item in detail]
    assert any("w.pkl" in line and "names 'os.system'" in line and "safetensors" in line for line in told)
    assert any(line.startswith("m.bin at byte 0: unknown_format") for line in told)
    assert detail[0]["loc"] == ["body", "digest"]
    assert platform.ports.metrics.value(ARTEFACT_FINDINGS, "pickle_global", "import") == 1
    assert (await platform.ports.fleet.load()).models == {}


async def test_a_waived_pickle_is_admitted_and_the_log_says_why(
    forestay: Forestay, platform: Platform, model: pathlib.Path
) -> None:
    """The audit row holds the file, the reason and the day; fickling was asked."""
    (model.parent / "weights" / "old.pt").write_bytes(torch_zip())
    model.write_text(SPEC + waiver("weights/old.pt"))
    assert (await forestay("deploy", str(model))).status == 0
    rows = await platform.ports.fleet.audit_rows(subject="models:acme/echo", before=None, limit=10)
    row = next(row for row in rows if row.entry.action == "admit_files")
    assert row.entry.detail["waived"] == ["weights/old.pt"]
    assert row.entry.detail["waiver"] == {"reason": "not yet converted", "until": UNTIL}
    assert str(row.entry.detail["files"]).startswith("sha256:")


@pytest.mark.parametrize(
    ("pickle", "section", "told"),
    [
        (called_stacked("os system"), waiver("old.pt"), "names 'os.system'"),
        (torch_zip(), waiver("old.pt", until="2020-01-01"), "its waiver ended on 2020-01-01"),
        (torch_zip(), waiver("other.pt"), "old.pt at data.pkl: pickle"),
    ],
)
async def test_a_waiver_lifts_no_more_than_it_says(platform: Platform, pickle: bytes, section: str, told: str) -> None:
    """Not a name outside the list, not after its day, not another file."""
    import yaml  # noqa: PLC0415 - only here

    artefacts = yaml.safe_load(section)["artefacts"]
    artefacts["allow_pickle"]["until"] = str(artefacts["allow_pickle"]["until"])
    status, answer = await admin(platform, {"app.py": APP.encode(), "old.pt": pickle}, artefacts=artefacts)
    assert status == 422
    assert told in json.dumps(answer).replace("\\\\", "\\")


async def test_signed_weights_are_deployed_where_signatures_are_required(
    forestay: Forestay, platform: Platform, model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """keygen, sign, trust, deploy; without a signature, or without trust in its key, the file is named."""
    key, folder = tmp_path / "release.pem", model.parent / "weights"
    asked = {"signature": "required", "keys": ["release"]}
    model.write_text(SPEC + f"artefacts: {json.dumps(asked)}\n")
    assert (await forestay("artefact", "keygen", str(key))).status == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert "weights/model.safetensors" in json.dumps(await admin(platform, files_of(model.parent), artefacts=asked))
    assert (await forestay("artefact", "sign", str(folder), "--key", str(key))).status == 0
    assert (await forestay("artefact", "verify", str(folder), "--key", f"{key}.pub")).status == 0
    assert "not trusted here" in json.dumps(await admin(platform, files_of(model.parent), artefacts=asked))
    assert (await forestay("artefact", "trust", "add", "release", "--key", f"{key}.pub")).status == 0
    listed = json.loads((await forestay("artefact", "trust", "list", "--json")).out)
    assert [item["name"] for item in listed] == ["release"]
    assert (await forestay("deploy", str(model))).status == 0
    assert (await forestay("artefact", "trust", "remove", "release")).status == 0
    assert (await forestay("artefact", "trust", "remove", "release")).status == 1


async def test_a_broken_signature_refuses_even_where_none_is_required(
    forestay: Forestay, platform: Platform, model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One byte altered after signing: the command and the platform name the file."""
    key, folder = tmp_path / "release.pem", model.parent / "weights"
    for words in (("keygen", str(key)), ("sign", str(folder), "--key", str(key))):
        assert (await forestay("artefact", *words)).status == 0
    assert (await forestay("artefact", "trust", "add", "release", "--key", f"{key}.pub")).status == 0
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert (await forestay("artefact", "verify", str(folder), "--key", f"{key}.pub")).status == 1
    status, answer = await admin(platform, files_of(model.parent))
    assert status == 422
    assert "model.safetensors was altered" in json.dumps(answer)


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Release", "public_key": "x"}, "name"),
        ({"name": "release", "public_key": "x"}, "public_key"),
        ({"name": "release", "public_key": "x" * 100_000}, "public_key"),
        ({"name": "release"}, "body"),
    ],
)
async def test_what_is_no_key_is_refused_with_its_field(platform: Platform, body: object, field: str) -> None:
    """422 that names what to mend."""
    status, answer = await call(platform, "POST", "/trust", body=json.dumps(body).encode())
    assert status == 422
    first = cast("list[dict[str, object]]", answer["detail"])[0]
    assert first["loc"] == (["body", field] if field != "body" else ["body"])


async def test_a_scan_says_what_each_file_is(forestay: Forestay, model: pathlib.Path) -> None:
    """Exit 0 for what would be admitted, 1 with findings otherwise; nothing is loaded."""
    good = await forestay("artefact", "scan", str(model.parent), "--second-opinion", "--json")
    assert good.status == 0, good.out
    formats = {item["file"]: item["format"] for item in cast("list[dict[str, str]]", good.json()["files"])}
    assert formats["weights/model.safetensors"] == "safetensors"
    (model.parent / "weights.pkl").write_bytes(called_stacked("builtins eval"))
    bad = await forestay("artefact", "scan", str(model.parent))
    assert bad.status == 1
    assert "names 'builtins.eval'" in bad.out
    assert (await forestay("artefact", "scan", str(model.parent / "absent"))).status == 2


async def test_the_digest_of_a_folder_is_the_same_everywhere(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """It depends on names and bytes only, and a link in it is refused."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights.safetensors())
    first, second = [(await forestay("artefact", "digest", str(tmp_path / name))).out for name in ("a", "b")]
    assert first == second
    assert first.startswith("sha256:")
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    ran = await forestay("artefact", "digest", str(tmp_path / "a"))
    assert (ran.status, "link" in ran.err) == (2, True)
