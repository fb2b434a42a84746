"""`forestay logout`: end the session and forget it."""

import dataclasses
import pathlib
from typing import Annotated

import typer

from forestay.cli.client import PlatformClient, Rejected, load_profile, save_profile
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.settings import client_settings

app = typer.Typer()


@app.command()
def logout(
    everywhere: Annotated[bool, typer.Option(help="End every session of yours, on other machines too.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """End the session that `forestay login` saved.

    Example: forestay logout
    """
    path = pathlib.Path(client_settings().profile_file)
    profile = load_profile(path)
    if profile is None or not profile.session:
        raise UsageError("profile", f"no session is saved at {path}")
    try:
        ended = PlatformClient(dataclasses.replace(profile, key="")).post("/admin/sign-out", {"everywhere": everywhere})
    except Rejected as error:
        if error.status != 401:  # it had ended by itself
            raise
        ended = {"sessions_ended": 0}
    save_profile(path, dataclasses.replace(profile, session=""))
    if json:
        print_json(ended)
        return
    say("signed out")
