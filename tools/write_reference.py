"""Write the generated pages of `docs/reference/`: settings from the settings tree, commands from the command line.

`make docs` runs it; `tests/architecture/test_reference_pages.py` fails when a page and its source differ.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import typer

from forestay.settings import Settings

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
SETTINGS_INTRODUCTION = """# Settings

Every setting is an environment variable, read once at start. Empty means "not set". This page is generated from
`src/forestay/settings.py` by `make docs`.
"""
CLI_INTRODUCTION = """# Command line

Every command has `--help`; those that print have `--json`. Exit status: 0 done, 1 failed, 2 wrong use. Commands that
speak to a running platform find it by `FORESTAY_URL` and `FORESTAY_KEY` (an ADMIN key), or by a saved profile. The page
is generated from the command line itself by `make docs`.
"""


def main() -> int:
    """Write every generated page that differs; with `--check` only name it and exit 1."""
    check = "--check" in sys.argv[1:]
    stale = False
    for name, text in (("settings.md", render_settings()), ("cli.md", render_cli())):
        page = REFERENCE / name
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale = True
        print(f"{'stale' if check else 'wrote'}: docs/reference/{name} (make docs)")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


def render_settings() -> str:
    """Return the page of settings."""
    parts = [SETTINGS_INTRODUCTION]
    for group in dataclasses.fields(Settings):
        kind = type(getattr(Settings(), group.name))
        fields = [field for field in dataclasses.fields(kind) if "variable" in field.metadata]
        parts.append(
            f"\n## {group.name}\n\n{(kind.__doc__ or '').strip()}\n\n"
            "| variable | default | what it does |\n|---|---|---|\n"
        )
        parts += [
            f"| `{field.metadata['variable']}` | {show(field.default)} | {cell(field.metadata['doc'])} |\n"
            for field in fields
        ]
    return "".join(parts)


def show(default: object) -> str:
    """Return a default as a reader would type it."""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default == "":
        return ""
    return f"`{default}`"


def cell(text: str) -> str:
    """Return text fit for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def render_cli() -> str:
    """Return the page of commands."""
    from forestay.cli import app, load_command  # noqa: PLC0415 - the settings page must not need the whole CLI

    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="forestay")
    parts = [CLI_INTRODUCTION]
    for name in root.list_commands(context):
        parts += describe(load_command(name), ["forestay", name])
    return "".join(parts)


def describe(command: Any, path: list[str]) -> list[str]:
    """Return the sections of a command and of those below it; typer's click is private, hence no types."""
    context = typer.Context(command, info_name=path[-1])
    level = "#" * len(path)
    text = cell((command.help or "").split("\f")[0])
    if hasattr(command, "list_commands"):
        parts = [f"\n{level} {' '.join(path)}\n\n{text}\n"]
        for name in sorted(command.list_commands(context)):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                parts += describe(child, [*path, name])
        return parts
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    parts = [f"\n{level} {' '.join(path)}\n\n{text}\n\n```text\n{usage}\n```\n"]
    rows = [
        f"| `{', '.join(p.opts)}` | {cell(getattr(p, 'help', None) or '')} |\n"
        for p in command.get_params(context)
        if p.name != "help" and not getattr(p, "hidden", False)
    ]
    return [*parts, "\n| option | what it does |\n|---|---|\n", *rows] if rows else parts


if __name__ == "__main__":
    sys.exit(main())
