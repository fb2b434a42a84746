"""Write the generated pages of `docs/reference/`, each from its source: settings, commands, spec, routes, metrics, ...

`make docs` runs it; `tests/architecture/test_reference_pages.py` fails when a page and its source differ.
"""

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs as a script

from tools.reference_tables import render_admin, render_benches, render_metrics

from forestay.abuse.rules_file import MAX_COUNTERS, MAX_DEPTH, MAX_RULES, default_rules, default_text
from forestay.abuse.vocabulary import SIGNALS, Per
from forestay.artefacts.findings import MEANINGS, FlawKind
from forestay.artefacts.formats import OTHERS, WAIVABLE, WEIGHTS, Format
from forestay.artefacts.pickle_names import ALLOWED
from forestay.clock import SystemClock
from forestay.fleet.spec_file import json_schema
from forestay.safety.classifiers.lexicon import LexiconDetectors
from forestay.safety.classifiers.registry import installed
from forestay.safety.coverage import left_out, matrix, unnamed
from forestay.safety.judge.folder import missing
from forestay.safety.policy_file import standard_policy
from forestay.safety.taxonomy import CODES, Category, Modality
from forestay.settings import Settings

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
SETTINGS_INTRODUCTION = """# Settings

For whoever runs the processes. Every setting is an environment variable, read once at start. Empty means "not set".
Times are in seconds and sizes in bytes, unless the name or the text says otherwise. This page is generated from
`src/forestay/settings.py` by `make docs`.
"""
SPEC_INTRODUCTION = """# The model spec

One YAML file declares a model. A fault is told with file, line, field and mend. Version 0. This page is generated from
`src/forestay/fleet/spec_file.py` by `make docs`; `examples/digits/model.yaml` is a whole one. Editors complete and
check a spec whose first line is `# yaml-language-server: $schema=` and the address of
[model-spec.schema.json](model-spec.schema.json).
"""
ARTEFACTS_INTRODUCTION = """# Model files: formats and findings

What a model's files may be, and everything that can be said against one. A file is judged by its bytes, never by its
name; nothing is loaded or run to judge it. See also [sign and admit a model](../howto/sign-and-admit-a-model.md).
This page is generated from `src/forestay/artefacts/` by `make docs`.
"""
COVERAGE_INTRODUCTION = """# What the guard covers

Which bundled detector declares to cover which category in which kind of content. `-` is a gap: nobody here can judge
it, and a policy that names it must say `uncovered: review` or `block`. `forestay safety coverage` shows the same for
your platform, with hash banks and detectors that you have plugged in. What a detector covers is no promise of how much
it finds: see [the text guard](../explanation/text-guard.md) and [judges](../explanation/judges.md). `drawn-text@1`, of
the extra `ocr`, judges the words inside pictures and nothing else of them.
This page is generated from the detectors' own declarations by `make docs`.

"""
STANDARD_INTRODUCTION = """
## What the policy `standard` leaves unjudged

What a policy does not name, nobody judges under it. `forestay safety coverage` shows this for every policy in force on
your platform, and with `--policy FILE` for one that you have not set yet.

| kind of content | `standard` names | nobody judges |
|---|---|---|
"""
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
ABUSE_INTRODUCTION = f"""# Rules about callers

YAML: at most {MAX_RULES} rules and {MAX_COUNTERS} counters, conditions nested at most {MAX_DEPTH} deep.
Nothing is evaluated; `forestay abuse rules check FILE` tells every fault with its line.
[How callers are judged](../explanation/abuse.md) says what signals mean.
This page is generated from `src/forestay/abuse/` by `make docs`.

## A rule

| field | what it says |
|---|---|
| `id` | its name, once in the file |
| `code` | what the caller is told: a word such as `key_leak` |
| `per` | about whom it is: `key`, `tenant` or `network` |
| `when` | the condition |
| `then.standing`, `then.for` | `watch`, `refer`, `throttle`, `step_up` or `suspend`, and for how long, at most 30d |
| `then.factor` | of a throttle: limits are multiplied by it |
| `then.freeze_results` | of a suspension: results of earlier requests are kept back too |
| `then.label` | `{{name, for}}`: a mark that other rules may ask for, beside a standing or alone, at most 366d |
| `then.reason` | one line for operators; `{{names}}` of signals and counters become their values |

A condition is one of `{{signal: NAME, at_least: N}}` (or `above`, `at_most`, `below`), `{{counter: ID, at_least: N}}`,
`{{label: NAME}}`, `{{not: ...}}`, `{{all: [...]}}` and `{{any: [...]}}`. Evidence may be asked for at least so much,
never for at most so much: more evidence never decides less.

## A counter

`{{id, per, window, where}}` with one of `count: calls`, `sum: seconds` and `distinct: FIELD` (`network`, `agent`,
`model`, `prompt`, `key`). The window is at most 7d, exact to a twelfth. `where` narrows by `model`, `lane`, `verb`,
`network`, `agent`, `category` (`content`, `limit`, `auth`, `standing`, `other`), `cause` and `accepted`.
What is refused, or throttled by a policy, after its call was noted counts as a call of its own, with the verb
`refused_later`; once a call.
"""
CLI_INTRODUCTION = """# Command line

Every command has `--help` and `--json`. Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted. An error is one
line on standard error that says how to mend it. Commands that speak to a running platform find it by `FORESTAY_URL` and
`FORESTAY_KEY` (an ADMIN key), or by a saved profile (`forestay profile save`, `forestay login`). The page is generated
from the command line itself by `make docs`.
"""


def main() -> int:
    """Write every generated page that differs; with `--check` only name it and exit 1."""
    check = "--check" in sys.argv[1:]
    stale = False
    pages = (
        ("settings.md", render_settings()),
        ("cli.md", render_cli()),
        ("model-spec.md", render_spec()),
        ("model-spec.schema.json", json.dumps(json_schema(), indent=2) + "\n"),
        ("artefacts.md", render_artefacts()),
        ("abuse-rules.md", render_abuse_rules()),
        ("coverage.md", render_coverage()),
        ("admin-api.md", render_admin()),
        ("metrics.md", render_metrics()),
        ("benches.md", render_benches()),
    )
    for name, text in pages:
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
    if isinstance(default, float):  # times are floats, in seconds
        units = ((86_400, "days"), (3_600, "h"))
        told = next((f" ({default / size:g} {unit})" for size, unit in units if default and default % size == 0), "")
        return f"`{default:.15g}`{told}"
    return f"`{default}`"


def cell(text: str) -> str:
    """Return text fit for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def render_spec() -> str:
    """Return the page of the model spec."""
    schema = json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})  # type: ignore[assignment]
    parts = [SPEC_INTRODUCTION]
    below = sorted((spec_title(name), item) for name, item in definitions.items() if "properties" in item)
    for title, part in (("The file", schema), *below):
        rows = [spec_row(name, field, part, definitions) for name, field in part.get("properties", {}).items()]  # type: ignore[attr-defined]
        if rows:
            text = cell(str(part.get("description", "")))
            parts.append(f"\n## {title}\n\n{text}\n\n| field | form | default | what it says |\n|---|---|---|---|\n")
            parts += rows
    return "".join(parts)


def render_abuse_rules() -> str:
    """Return the page of the rule language, its signals, and the rules that come along."""
    parts = [ABUSE_INTRODUCTION, "\n## Signals\n"]
    for per in Per:
        parts.append(f"\nPer {per}:\n\n| signal | unit | most | kind | what it is |\n|---|---|---|---|---|\n")
        for signal in SIGNALS.values():
            if per in signal.per:
                most = f"{signal.most:g}" if signal.most < 1e12 else ""
                kind = "evidence" if signal.evidence else "context"
                parts.append(f"| `{signal.name}` | {signal.unit} | {most} | {kind} | {cell(signal.doc)} |\n")
    parts.append("\n## The rules that come along\n\n| id | code | per | standing | for |\n|---|---|---|---|---|\n")
    for rule in default_rules().rules:
        standing = "" if rule.then.kind is None else rule.then.kind.value
        hours = rule.then.lasting.total_seconds() / 3600
        parts.append(f"| `{rule.id}` | `{rule.code}` | {rule.per} | {standing} | {hours:g} h |\n")
    parts.append(f"\n```yaml\n{default_text().strip()}\n```\n")
    return "".join(parts)


def render_artefacts() -> str:
    """Return the page of formats and findings."""
    parts = [ARTEFACTS_INTRODUCTION, "\n## Formats\n\n| format | admitted |\n|---|---|\n"]
    words = {
        **dict.fromkeys(WEIGHTS, "as weights"),
        **dict.fromkeys(OTHERS, "beside weights"),
        **dict.fromkeys(WAIVABLE, "by waiver, where only the names below are in it"),
    }
    parts += [f"| `{kind}` | {words.get(kind, 'no')} |\n" for kind in Format]
    parts.append("\n## Findings\n\n| finding | what it says | what to do |\n|---|---|---|\n")
    parts += [f"| `{kind}` | {cell(MEANINGS[kind].says)} | {cell(MEANINGS[kind].mend)} |\n" for kind in FlawKind]
    parts.append("\n## Names that a waived pickle may hold\n\n| module | names |\n|---|---|\n")
    parts += [
        f"| `{module}` | {', '.join(f'`{name}`' for name in sorted(names))} |\n" for module, names in ALLOWED.items()
    ]
    return "".join(parts)


def spec_title(name: str) -> str:
    """Return the heading of one part of the spec."""
    return {
        "OwnerFile": "owner",
        "HostFile": "host",
        "EndpointFile": "endpoints",
        "MediaInputFile": "media_inputs",
        "ResourceFile": "resources",
        "LimitFile": "limits",
        "RetryFile": "retry",
        "CapacityFile": "capacity",
        "ArtefactFile": "artefacts",
        "QualityFile": "quality",
        "ThresholdFile": "quality.thresholds",
        "SloEntryFile": "slos",
        "PickleWaiverFile": "artefacts.allow_pickle",
        "MountDigestFile": "artefacts.mounts",
        "SafetyFile": "safety",
        "RolloutFile": "rollout",
        "ShadowFile": "rollout.shadow",
        "CanariesFile": "quality.canaries",
        "CanaryFile": "quality.canaries.inputs",
        "ForbiddenFile": "quality.forbidden",
        "ScorerFile": "quality.scorers",
    }.get(name, name)


def spec_row(name: str, field: dict[str, Any], part: Any, definitions: dict[str, Any]) -> str:
    """Return one field's row."""
    default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
    if name in part.get("required", []):
        default = "required"
    return f"| `{name}` | {cell(spec_form(field, definitions))} | {default} | {cell(field.get('description', ''))} |\n"


def spec_form(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the form of a value in words; a closed set of words is told where it is used."""
    if "enum" in field or "const" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    if "anyOf" in field:
        return " or ".join(spec_form(option, definitions) for option in field["anyOf"])
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        named = definitions.get(name, {})
        return spec_form(named, definitions) if "enum" in named else f"see {spec_title(name)}"
    if field.get("type") in {"array", "object"}:
        return f"list: {spec_form(field.get('items', {}), definitions)}" if field["type"] == "array" else "mapping"
    bounds = [f"{sign} {field[key]}" for key, sign in BOUNDS.items() if key in field]
    return " ".join([{"null": "null", "string": "text"}.get(str(field.get("type")), str(field.get("type"))), *bounds])


def render_coverage() -> str:
    """Write who covers which category of which kind of content; where one of ours is missing, the page stays."""
    if missing():
        return (REFERENCE / "coverage.md").read_text(encoding="utf-8")
    bundled = [detector.info for detector in installed(Settings().judge)]
    known = [*bundled, *asyncio.run(LexiconDetectors(SystemClock()).known())]
    if left_out(known):
        return (REFERENCE / "coverage.md").read_text(encoding="utf-8")
    cells = matrix(known)
    head = ["category", *(modality.value for modality in Modality), "AILuminate", "OpenAI", "Azure"]
    parts = [COVERAGE_INTRODUCTION, f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"]
    for category in Category:
        covered = [", ".join(f"`{name}`" for name in cells[category, modality]) or "-" for modality in Modality]
        codes = [said or "-" for said in (CODES[category].ailuminate, CODES[category].openai, CODES[category].azure)]
        parts.append(f"| `{category.value}` | {' | '.join([*covered, *codes])} |\n")
    return "".join([*parts, STANDARD_INTRODUCTION, *standard_rows()])


def standard_rows() -> list[str]:
    """Return a line for each modality: what the policy that comes along names, and what it does not."""
    left = unnamed(standard_policy())
    lines: list[str] = []
    for modality, nobody in left.items():
        named = ", ".join(f"`{category}`" for category in Category if category not in nobody) or "-"
        lines.append(f"| {modality} | {named} | {', '.join(f'`{category}`' for category in nobody) or '-'} |\n")
    return lines


def render_cli() -> str:
    """Return the page of commands."""
    from forestay.cli import app, load_command  # noqa: PLC0415 - the settings page must not need the whole CLI

    root: Any = typer.main.get_command(app)
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
