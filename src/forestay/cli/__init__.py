"""The command line: one noun a file, each imported only when its command runs.

It decides which commands exist and how an error is told: one line that says what failed, which thing, and how to mend
it; exit 2 for wrong usage, 1 for a failure, 130 for an interrupt; a traceback only with FORESTAY_DEBUG=1. With `--json`
the error is also one JSON object on standard output. It holds no command of its own.
"""

import importlib
import importlib.util
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer.core import TyperCommand, TyperGroup

from forestay import __version__
from forestay.cli.output import print_json, say
from forestay.errors import ForestayError, UsageError

if TYPE_CHECKING:
    from typer._click import Command, Context

_PLATFORM = "Run it"
_FLEET = "Speak to a running platform"
_COMMANDS: dict[str, tuple[str, str, str]] = {  # name -> module, panel, one line of help
    "up": ("forestay.cli.up", _PLATFORM, "Start the whole platform on this machine."),
    "demo": ("forestay.cli.demo", _PLATFORM, "Start a platform, break or attack it, and see promises kept."),
    "gateway": ("forestay.cli.gateway", _PLATFORM, "Run one gateway against the configured stores."),
    "worker": ("forestay.cli.worker", _PLATFORM, "Run one worker against the configured stores."),
    "controller": ("forestay.cli.controller", _PLATFORM, "Run one controller against the configured stores."),
    "judge": ("forestay.cli.judge", _PLATFORM, "Run this host's judge, the process that holds the detectors."),
    "migrate": ("forestay.cli.migrate", _PLATFORM, "Bring the database's tables up to date."),
    "tls": ("forestay.cli.tls", _PLATFORM, "Make and show the local certificate authority."),
    "doctor": ("forestay.cli.doctor", _PLATFORM, "Check what the platform needs, and say how to mend it."),
    "profile": ("forestay.cli.profile", _FLEET, "Remember where the platform is and which key to use."),
    "login": ("forestay.cli.login", _FLEET, "Sign in as a person."),
    "logout": ("forestay.cli.logout", _FLEET, "End your session."),
    "whoami": ("forestay.cli.whoami", _FLEET, "Show as whom commands act."),
    "status": ("forestay.cli.status", _FLEET, "Say what burns, who is hurt, what changed, and what you can do."),
    "model": ("forestay.cli.model", _FLEET, "Write, check, onboard, review, list and show models."),
    "deploy": ("forestay.cli.deploy", _FLEET, "Deploy a model from its spec."),
    "rollout": ("forestay.cli.rollout", _FLEET, "Ship a revision by gates, shadow and canary that roll it back."),
    "fleet": ("forestay.cli.fleet", _FLEET, "Show what should run and what does; freeze automation."),
    "capacity": ("forestay.cli.capacity", _FLEET, "Predict what a request costs; show what has been learned."),
    "key": ("forestay.cli.key", _FLEET, "Create, list, show, rotate and revoke keys."),
    "tenant": ("forestay.cli.tenant", _FLEET, "Create, list and show tenants."),
    "limit": ("forestay.cli.limit", _FLEET, "Set, list and show limits and budgets; show what is used."),
    "person": ("forestay.cli.person", _FLEET, "Say who may sign in, and as what."),
    "request": ("forestay.cli.request", _FLEET, "Show, list and cancel requests."),
    "facts": ("forestay.cli.facts", _PLATFORM, "Take facts out as files."),
    "observe": ("forestay.cli.observe", _FLEET, "Feed facts of another fleet; show what is rolled up."),
    "alert": ("forestay.cli.alert", _FLEET, "Read alerts, take them in hand, silence them; try the ways to receivers."),
    "abuse": ("forestay.cli.abuse", _FLEET, "Read, set, lift and appeal standings of callers; judge by rules."),
    "artefact": (
        "forestay.cli.artefact",
        _FLEET,
        "Look at model files; sign, verify, and say whose signatures count.",
    ),
    "safety": (
        "forestay.cli.safety",
        _FLEET,
        "Content: policies, verdicts, reviews, appeals, hash lists, origin.",
    ),
    "quality": ("forestay.cli.quality", _FLEET, "Show what was found wrong with outputs, and what is held back."),
    "drill": ("forestay.cli.drill", _FLEET, "Put faults in on purpose, for a while, and see them found."),
    "slo": ("forestay.cli.slo", _FLEET, "Show what burns and what is left of error budgets; write and check SLOs."),
    "audit": ("forestay.cli.audit", _FLEET, "Read who did what, and why."),
}


class _LazyGroup(TyperGroup):
    """Lists every command from the table; imports a command's module only to run it."""

    def list_commands(self, ctx: "Context") -> list[str]:  # noqa: ARG002 - the framework's signature
        return [name for name, (module, _, _) in _COMMANDS.items() if _exists(module)]

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":  # noqa: ARG002 - the framework's signature
        if cmd_name not in _COMMANDS:
            return None
        _, panel, line = _COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=line, rich_help_panel=panel)

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, Command | None, list[str]]":
        if args and args[0] in _COMMANDS and _exists(_COMMANDS[args[0]][0]):
            return args[0], load_command(args[0]), args[1:]
        self.commands = {name: TyperCommand(name) for name in self.list_commands(ctx)}  # for "did you mean"
        return super().resolve_command(ctx, args)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def load_command(name: str) -> "Command":
    """Import the module of `name` and return its command; each such module exposes `app: typer.Typer`."""
    module, _, line = _COMMANDS[name]
    application = importlib.import_module(module).app
    application.info.help = application.info.help or line
    application._add_completion = False  # noqa: SLF001 - completion belongs to the whole, not to each noun
    return typer.main.get_command(application)


app = typer.Typer(
    cls=_LazyGroup,
    name="forestay",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"forestay {__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction] - the framework calls it
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep a fleet of generative-media model APIs available, fast, secure and safe.

    Example: forestay up --data-dir ./data --fleet examples/fleet.yaml
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        status: object = typer.main.get_command(app).main(args=words, prog_name="forestay", standalone_mode=False)
    except typer.Abort:
        return _tell(words, "Interrupted", "stopped by you", 130)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person gets one line, never a traceback
        return _fail(words, error)
    return status if isinstance(status, int) else 0


def _fail(words: list[str], error: Exception) -> int:
    if _debug():
        traceback.print_exception(error)
    while isinstance(error, ExceptionGroup):  # several things failed at once: the first says why
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the framework's own errors of usage
        return _usage(words, error)
    if isinstance(error, UsageError):
        return _tell(words, type(error).__name__, str(error), 2)
    if isinstance(error, (ForestayError, OSError)):
        return _tell(words, type(error).__name__, str(error), 1)
    if isinstance(error, RecursionError):  # brackets without end in a file of JSON or YAML
        return _tell(words, "UsageError", "a file or a value nests too deep to be read; close its brackets sooner", 2)
    if isinstance(error, UnicodeEncodeError):  # bytes on the command line that are no text
        return _tell(words, "UsageError", "an argument, or the name of a file, is not UTF-8; write it so", 2)
    line = f"{type(error).__name__}: {error} (a defect: set FORESTAY_DEBUG=1 to see where, and report it)"
    return _tell(words, "Defect", line, 1)


def _usage(words: list[str], error: Exception) -> int:
    message = str(getattr(error, "format_message")())  # noqa: B009 - not part of Exception's type
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)  # a page of help, drawn by the framework
        return 2
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "forestay"
    return _tell(words, "UsageError", f"{message.rstrip('.')}; see `{path} --help`", 2)


def _tell(words: list[str], kind: str, message: str, status: int) -> int:
    line = " ".join(message.split())
    say(f"forestay: {line}", err=True)
    if "--json" in words:
        print_json({"error": {"kind": kind, "message": line}})
    return status


def _debug() -> bool:
    from forestay.settings import client_settings

    try:
        return client_settings().debug
    except UsageError:
        return False
