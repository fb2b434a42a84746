"""`forestay login`: sign in as a person; the session is saved in the profile, and other commands use it.

By password, by OpenID Connect from a browser anywhere (`--oidc`), or, for programs, with an ID token on standard input.
"""

import dataclasses
import pathlib
import sys
from typing import Annotated, cast

import typer

from forestay.cli.client import PlatformClient, Profile, load_profile, save_profile
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.clock import SystemClock
from forestay.errors import Refused, UsageError
from forestay.settings import client_settings

app = typer.Typer()


@app.command()
def login(
    email: Annotated[str, typer.Option(help="Your e-mail address; asked for when missing.")] = "",
    url: Annotated[str, typer.Option(help="The platform; empty: FORESTAY_URL, else the saved profile.")] = "",
    ca_file: Annotated[str, typer.Option(help="Certificate authority of an https URL.")] = "",
    new_password: Annotated[bool, typer.Option(help="Choose another password after signing in.")] = False,
    oidc: Annotated[bool, typer.Option(help="Sign in at the platform's OpenID provider.")] = False,
    id_token_stdin: Annotated[bool, typer.Option(help="Exchange an ID token read from standard input.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Sign in and save the session in the profile. Passwords are asked for, or read line by line from a pipe.

    Example: forestay login --email olga@example.com
    """
    path, known = _profile(url, ca_file)
    client = PlatformClient(dataclasses.replace(known, key="", session=""))
    password = ""
    if id_token_stdin:
        opened = _opened(client.post("/admin/oidc/exchange", {"id_token": _ask("ID token")}))
    elif oidc:
        opened = _by_device(client, SystemClock())
    else:
        typed = email or _ask("E-mail address")
        password = _ask("Password", hidden=True)
        opened = _opened(client.post("/admin/sign-in", {"email": typed, "password": password}))
    profile = dataclasses.replace(known, session=str(opened["token"]))
    if opened["must_choose_password"] or (new_password and password):
        _choose(PlatformClient(profile), password)
    save_profile(path, profile)
    _say(opened, path, json=json)


def _by_device(client: PlatformClient, clock: SystemClock) -> dict[str, object]:
    """Show where to sign in, and ask until that is done or the time is over (RFC 8628)."""
    begun = _opened(client.post("/admin/oidc/device"))
    address = begun["verification_uri_complete"] or begun["verification_uri"]
    say(f"Open {address} and enter the code {begun['user_code']}", err=True)
    pause_seconds = float(str(begun["interval"]))
    until = clock.monotonic() + float(str(begun["expires_in"]))
    while clock.monotonic() < until:
        clock.block(pause_seconds)
        answer = _opened(client.post("/admin/oidc/device/token", {"handle": begun["handle"]}))
        if "token" in answer:
            return answer
        if answer["pending"] == "slow_down":
            pause_seconds += 5.0  # as the RFC asks, section 3.5
    raise Refused("nobody signed in before the code expired; run the command again")


def _opened(answer: object) -> dict[str, object]:
    return cast("dict[str, object]", answer)


def _profile(url: str, ca_file: str) -> tuple[pathlib.Path, Profile]:
    """Return where the profile lies and what it says, with what is asked for now."""
    settings = client_settings()
    path = pathlib.Path(settings.profile_file)
    saved = load_profile(path)
    wanted = url or settings.url or (saved.url if saved else "")
    if not wanted:
        raise UsageError("--url", "no platform is known; give its address, for example http://127.0.0.1:8080")
    same = saved is not None and saved.url == wanted
    authority = ca_file or settings.ca_file or (saved.ca_file if saved is not None and same else "")
    return path, Profile(wanted, saved.key if saved is not None and same else "", authority)


def _choose(client: PlatformClient, current: str) -> None:
    """Replace the password that was handed out."""
    say("Choose a password of your own.", err=True)
    new = _ask("New password", hidden=True)
    if _ask("Again", hidden=True) != new:
        raise UsageError("password", "the two differ; sign in again")
    client.post("/admin/password", {"current": current, "new": new})


def _ask(what: str, *, hidden: bool = False) -> str:
    """Ask on a terminal; from a pipe take the next line."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=hidden, err=True))
    line = sys.stdin.readline()
    if not line:
        raise UsageError(what.lower(), "is missing on standard input")
    return line.rstrip("\n")


def _say(opened: dict[str, object], path: pathlib.Path, *, json: bool) -> None:
    if json:
        print_json({name: value for name, value in opened.items() if name != "token"} | {"file": str(path)})
        return
    say(f"signed in as {opened['email']} ({opened['role']}) until {opened['expires_at']}")
