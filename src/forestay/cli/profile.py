"""`forestay profile`: remember where a platform is and which key to use, for every other command."""

import pathlib
from typing import Annotated

import typer

from forestay.cli.client import PlatformClient, Profile, load_profile, save_profile
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.settings import client_settings

app = typer.Typer(no_args_is_help=True, help="Remember where the platform is and which key to use.")


@app.command()
def save(
    url: Annotated[str, typer.Option(help="Base URL, for example http://127.0.0.1:8080.")] = "",
    key: Annotated[str, typer.Option(help="ADMIN key, `id:secret`; better in FORESTAY_KEY than on the line.")] = "",
    ca_file: Annotated[str, typer.Option(help="Certificate authority of an https URL.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Save a profile; what is not given comes from FORESTAY_URL and FORESTAY_KEY.

    Example: FORESTAY_KEY=id:secret forestay profile save --url http://127.0.0.1:8080
    """
    settings = client_settings()
    profile = Profile(url or settings.url, key or settings.key, ca_file or settings.ca_file)
    if not profile.key:
        raise UsageError("--key", "no key given; set FORESTAY_KEY or pass --key")
    PlatformClient(profile)  # refuses what is not a URL
    path = pathlib.Path(settings.profile_file)
    save_profile(path, profile)
    _say(path, profile, json=json)


@app.command()
def show(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show the saved profile, without the secret.

    Example: forestay profile show
    """
    path = pathlib.Path(client_settings().profile_file)
    profile = load_profile(path)
    if profile is None:
        raise UsageError("profile", f"none is saved at {path}; `forestay up` and `forestay profile save` write it")
    _say(path, profile, json=json)


def _say(path: pathlib.Path, profile: Profile, *, json: bool) -> None:
    key_id = profile.key.partition(":")[0]
    if json:
        signed_in = bool(profile.session)
        told = {"file": str(path), "url": profile.url, "key_id": key_id, "ca_file": profile.ca_file}
        print_json({**told, "signed_in": signed_in})
        return
    proof = "the session of `forestay login`" if profile.session else f"key {key_id}"
    say(f"{profile.url} with {proof} ({path})")
