"""`forestay tls`: make and show the local certificate authority, and print what clients need to trust it."""

import json as jsonlib
import pathlib
import shlex
from typing import Annotated, cast

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.settings import Settings, process_environment

app = typer.Typer(no_args_is_help=True, help="Make and show the local certificate authority.")

_DATA_DIR = typer.Option("--data-dir", help="Data folder of `forestay up`; its certificates are in DIR/tls.")
_DIR = typer.Option("--dir", help="Folder of the certificates, where no data folder is meant.")


@app.command()
def init(
    data_dir: Annotated[pathlib.Path | None, _DATA_DIR] = None,
    folder: Annotated[pathlib.Path | None, _DIR] = None,
    host: Annotated[list[str] | None, typer.Option("--host", help="A further name or address; repeatable.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Make the authority and the server's certificate where they are missing or near their end.

    Example: forestay tls init --data-dir ./data --host forestay.example.net
    """
    from forestay.clock import SystemClock
    from forestay.tls import ensure_tls

    files = ensure_tls(_folder(data_dir, folder), SystemClock().now(), tuple(host or ()))
    if json:
        print_json({"ca_file": files.ca, "certificate": files.certificate, "renewed": files.renewed})
        return
    done = "made" if files.renewed else "kept"
    say(f"{done} {files.certificate}, good until {files.expires_at:%Y-%m-%d}; clients trust {files.ca}")


@app.command()
def show(
    data_dir: Annotated[pathlib.Path | None, _DATA_DIR] = None,
    folder: Annotated[pathlib.Path | None, _DIR] = None,
    env: Annotated[bool, typer.Option("--env", help="Print shell lines for Python and Node clients.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show the certificate, or with --env the variables that point unmodified clients here, for the shell's `eval`.

    Example: forestay tls show --env --data-dir ./data
    """
    from forestay.tls import client_environment, read_tls

    place = _folder(data_dir, folder)
    files = read_tls(place)
    if files is None:
        raise UsageError("--data-dir", f"no certificates in {place}; make them with `forestay tls init`")
    tls_url, proxy_url = _addresses(data_dir)
    variables = client_environment(files.ca, tls_url, proxy_url)
    if env:
        _print_environment(variables, json=json)
    elif json:
        print_json({"ca_file": files.ca, "expires_at": files.expires_at, "names": files.names, "env": variables})
    else:
        say(f"{files.certificate}, good until {files.expires_at:%Y-%m-%d}, for {', '.join(files.names)}")
        say(f"clients trust {files.ca}; `forestay tls show --env` prints their variables")


def _print_environment(variables: dict[str, str], *, json: bool) -> None:
    if json:
        print_json(variables)
        return
    for name, value in variables.items():
        note = "  # proxy mode: uploads and tokens too, at fal's own host names" if name == "HTTPS_PROXY" else ""
        say(f"export {name}={shlex.quote(value)}{note}")


def _folder(data_dir: pathlib.Path | None, folder: pathlib.Path | None) -> pathlib.Path:
    if folder is not None:
        return folder.absolute()
    if data_dir is not None:
        return data_dir.absolute() / "tls"
    configured = Settings.from_environment(process_environment()).gateway.tls_dir
    if configured:
        return pathlib.Path(configured).absolute()
    raise UsageError("--data-dir", "say whose certificates: --data-dir of `forestay up`, or --dir")


def _addresses(data_dir: pathlib.Path | None) -> tuple[str, str]:
    """Return the TLS and proxy URLs that the platform on `data_dir` uses, empty when it never ran."""
    if data_dir is None:
        return "", ""
    try:
        known = cast("dict[str, str]", jsonlib.loads((data_dir / "addresses.json").read_text()))
    except (FileNotFoundError, ValueError):
        return "", ""
    return known.get("tls_url", ""), known.get("proxy_url", "")
