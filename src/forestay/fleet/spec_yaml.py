"""YAML as a model spec is written: plain values with the line of each, and nothing that YAML hides.

It decides what text is read at all: size, how deep it nests, no anchors, aliases and tags, no field written twice. It
knows no field of a spec. Called by `fleet/spec_file` and by the readers of policies, rules, SLOs and fleet files.
"""

from collections.abc import Iterator
from typing import cast

import yaml

from forestay.errors import UsageError

MAX_FILE_BYTES = 256 * 1024
MAX_DEPTH = 50  # a spec nests a dozen; the time that PyYAML takes grows with the square of open brackets
_OPENS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class SpecError(UsageError):
    """A spec that cannot be read: every fault on a line of its own."""

    def __init__(self, file_name: str, faults: list[str]) -> None:
        super().__init__(file_name, "; ".join(faults))
        self.faults = tuple(f"{file_name}:{fault}" for fault in faults)


def read_yaml(text: str, file_name: str) -> tuple[object, yaml.Node | None]:
    """Read YAML into plain values with its marks; raises SpecError for what YAML hides: twins, anchors, tags."""
    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise SpecError(file_name, [f"1: the file is larger than {MAX_FILE_BYTES // 1024} KiB; keep data beside it"])
    try:
        _refuse_hidden(cast("Iterator[yaml.Token]", yaml.scan(text, Loader=yaml.SafeLoader)), file_name)  # pyright: ignore[reportUnknownMemberType]
        node = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
        if node is not None:
            _refuse_twins(node, file_name)
        return yaml.safe_load(text), node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        told = f"{line}: not YAML: {error.problem or error.context}; look at the brackets, quotes and indents there"
        raise SpecError(file_name, [told]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        what = str(error) if type(error) is ValueError else type(error).__name__  # a date that does not exist, say
        raise SpecError(file_name, [f"1: not YAML: {what}"]) from None


def _refuse_hidden(tokens: Iterator[yaml.Token], file_name: str) -> None:
    """Stop at the first anchor, alias or tag, and where it nests too deep: before the rest is read at all."""
    depth = 0
    for token in tokens:
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
            raise SpecError(file_name, [f"{line}: anchors, aliases and tags are not read here; write it out"])
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if depth > MAX_DEPTH:
            raise SpecError(file_name, [f"{line}: nests deeper than {MAX_DEPTH} levels; close the brackets before it"])


def line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line (from 1) of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in _pairs(node):
            if isinstance(key, yaml.ScalarNode) and str(key.value) == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        items = cast("list[yaml.Node]", node.value)
        if part < len(items):
            return items[part].start_mark.line + 1, items[part]
    return None


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return cast("list[tuple[yaml.Node, yaml.Node]]", node.value)


def _refuse_twins(node: yaml.Node, file_name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in _pairs(node):
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                raise SpecError(file_name, [f"{key.start_mark.line + 1}: `{name}` is written twice; keep one"])
            seen.add(name)
            _refuse_twins(value, file_name)
    elif isinstance(node, yaml.SequenceNode):
        for item in cast("list[yaml.Node]", node.value):
            _refuse_twins(item, file_name)
