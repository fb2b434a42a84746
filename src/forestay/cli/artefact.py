"""`forestay artefact`: look at model files, sign and verify them, and say whose signatures count."""

import asyncio
import os
import pathlib
from typing import TYPE_CHECKING, Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

if TYPE_CHECKING:
    from forestay.artefacts.manifest import Manifest
    from forestay.artefacts.report import Report

app = typer.Typer(no_args_is_help=True, help="Look at model files, sign and verify them.")
trust = typer.Typer(no_args_is_help=True, help="Say whose signatures count.")
app.add_typer(trust, name="trust")
_PATH = typer.Argument(help="A folder or a file, for example examples/digits/weights.")
_PUBLIC_MODE, _PRIVATE_MODE = 0o644, 0o600


@app.command()
def scan(
    path: Annotated[pathlib.Path, _PATH],
    second_opinion: Annotated[
        bool, typer.Option("--second-opinion", help="Ask fickling and the formats' own libraries as well.")
    ] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what each file is and what is wrong with it; exits 1 when something would be refused. Nothing is loaded.

    Example: forestay artefact scan examples/digits/weights
    """
    report = _examine(path, everything=second_opinion)
    findings = report.findings_with(tuple(report.opinions))
    if json:
        files = [{"file": file.name, "format": file.format, "bytes": file.size_bytes} for file in report.files]
        told = [
            {"file": item.file, "kind": item.kind, "where": item.where, "what": item.what, "line": str(item)}
            for item in findings
        ]
        print_json({"admitted": not findings, "files": files, "findings": told})
    else:
        rows = [(file.name, file.format, f"{file.size_bytes:,}") for file in report.files]
        print_table(("file", "format", "bytes"), rows, empty="no files")
        for item in findings:
            say(str(item))
        say(f"{len(report.files)} files, {len(findings)} findings")
    if findings:
        raise typer.Exit(1)


@app.command()
def digest(path: Annotated[pathlib.Path, _PATH], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Print the digest of a folder's files, as `artefacts.mounts` in a spec wants it.

    Example: forestay artefact digest /data/models/stable-diffusion
    """
    manifest = _measure(path)
    if json:
        files = [{"file": item.name, "bytes": item.size_bytes, "sha256": item.sha256} for item in manifest.files]
        print_json({"digest": manifest.digest, "files": files})
        return
    say(manifest.digest)


@app.command()
def keygen(
    file: Annotated[pathlib.Path, typer.Argument(help="Where the private key goes; the public one gets `.pub`.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Make a key pair to sign models with (P-256, PEM).

    Example: forestay artefact keygen release.pem
    """
    from forestay.artefacts.signing import make_key_pair, read_public_key

    if not file.name:
        raise UsageError("FILE", "names no file; write one such as release.pem")
    public_file = file.with_name(file.name + ".pub")
    for path in (file, public_file):
        if path.exists():
            raise UsageError("FILE", f"{path} is there already; choose another name")
    private, public = make_key_pair()
    for path, text, mode in ((file, private, _PRIVATE_MODE), (public_file, public, _PUBLIC_MODE)):
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)  # a new file, never where a link leads
        with os.fdopen(number, "w", encoding="utf-8") as made:
            made.write(text)
    fingerprint = read_public_key(public, "new").fingerprint
    if json:
        print_json({"private_key": str(file), "public_key": str(public_file), "fingerprint": fingerprint})
        return
    say(f"{file} and {public_file}, fingerprint {fingerprint[:16]}; keep the first to yourself")


@app.command()
def sign(
    path: Annotated[pathlib.Path, typer.Argument(help="A folder, for example one of weights.")],
    key: Annotated[pathlib.Path, typer.Option(help="The private key, PEM.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Sign a folder: writes `model.sig` into it, in the OpenSSF model-signing format. Hidden files are left out.

    Example: forestay artefact sign examples/digits/weights --key release.pem
    """
    from forestay.artefacts.signing import SIGNATURE_NAME, bundled
    from forestay.artefacts.signing import sign as sign_manifest

    if not path.is_dir():
        raise UsageError("PATH", f"{path} is no folder")
    manifest = _measure(path)
    target = path / SIGNATURE_NAME
    target.write_text(sign_manifest(manifest, path.resolve().name, key), encoding="utf-8")
    count = len(bundled(manifest).files)
    if json:
        print_json({"signature": str(target), "files": count})
        return
    say(f"{target}: {count} files signed")


@app.command()
def verify(
    path: Annotated[pathlib.Path, typer.Argument(help="A folder with a model.sig.")],
    key: Annotated[pathlib.Path, typer.Option(help="The public key, PEM.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say whether a folder is as it was signed; exits 1 when it is not.

    Example: forestay artefact verify examples/digits/weights --key release.pem.pub
    """
    from forestay.artefacts.signing import SIGNATURE_NAME, NotSigned, bundled, read_public_key
    from forestay.artefacts.signing import verify as verify_signature

    trusted = read_public_key(_text(key, "--key"), key.name)
    result = verify_signature(_text(path / SIGNATURE_NAME, "PATH"), bundled(_measure(path)), [trusted])
    good = not isinstance(result, NotSigned)
    said = f"signed by {key}" if good else f"the signature {result.reason}"
    if json:
        print_json({"verified": good, "files": len(result.files) if good else 0, "reason": said})
    else:
        say(f"{path}: {said}", err=not good)
    if not good:
        raise typer.Exit(1)


@trust.command()
def add(
    name: Annotated[str, typer.Argument(help="What specs call it, for example release-2026.")],
    key: Annotated[pathlib.Path, typer.Option(help="The public key, PEM.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Trust a key: its signatures count from the next deploy and the next start.

    Example: forestay artefact trust add release-2026 --key release.pem.pub
    """
    made = cast("dict[str, str]", connect().post("/admin/trust", {"name": name, "public_key": _text(key, "--key")}))
    if json:
        print_json(made)
        return
    say(f"{made['name']} is trusted, fingerprint {made['fingerprint'][:16]}")


@trust.command(name="list")
def list_keys(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the trusted keys.

    Example: forestay artefact trust list
    """
    keys = cast("dict[str, list[dict[str, str]]]", connect().get("/admin/trust"))["keys"]
    if json:
        print_json(keys)
        return
    rows = [(item["name"], item["fingerprint"][:16], item["added_by"], item["added_at"]) for item in keys]
    print_table(("name", "fingerprint", "added by", "added at"), rows, empty="no key is trusted")


@trust.command()
def remove(name: Annotated[str, typer.Argument(help="Its name.")], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Stop trusting a key: what it alone signed does not start again where signatures are required.

    Example: forestay artefact trust remove release-2025
    """
    import urllib.parse

    gone = connect().delete(f"/admin/trust/{urllib.parse.quote(name, safe='')}")
    if json:
        print_json(gone)
        return
    say(f"{name} is trusted no more")


def _examine(path: pathlib.Path, *, everything: bool) -> "Report":
    from forestay.artefacts import limited
    from forestay.artefacts.program import EVERYTHING

    if not path.exists():
        raise UsageError("PATH", f"{path} does not exist")
    return asyncio.run(limited.examine(path, opinions=(EVERYTHING,) if everything else ()))


def _measure(path: pathlib.Path) -> "Manifest":
    """Return the manifest of a folder; a link or a special file in it is an error, since nobody could compare it."""
    from forestay.artefacts.folder import measure_folder

    if not path.is_dir():
        raise UsageError("PATH", f"{path} is no folder")
    manifest, findings = measure_folder(path)
    if findings:
        raise UsageError("PATH", str(findings[0]))
    return manifest


def _text(path: pathlib.Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(field, f"{path} cannot be read: {reason}") from None
