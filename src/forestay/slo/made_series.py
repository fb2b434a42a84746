"""Series that selectors of counters match, made up for tests: one of what is bad (or good), one of the rest.

It decides their labels. Prometheus counts every series that a selector matches, and the one of what is bad is often
matched by that of all too: then the rest is made without it. Pure. Called by `promtool_tests`.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Labels = dict[str, str]
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_OTHER = "other"
_MOST = 10_000  # combinations that are tried


class Matcher(NamedTuple):
    """One condition of a selector."""

    label: str
    sign: str
    text: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether it holds; a label that is absent is empty."""
        value = labels.get(self.label, "")
        fits = value == self.text if self.sign in {"=", "!="} else re.fullmatch(self.text, value) is not None
        return fits != self.sign.startswith("!")


def read_selector(selector: str) -> list[Matcher]:
    """Read a selector; its metric's name is the matcher of `__name__`."""
    name, _, labels = selector.partition("{")
    found = [Matcher(*match) for match in _MATCHER.findall(labels)]
    return [Matcher("__name__", "=", name.strip()), *found] if name.strip() else found


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a selector matches a series."""
    return all(matcher.holds(labels) for matcher in read_selector(selector))


def made_series(total: str, part: str) -> tuple[Labels, Labels] | None:
    """Return a series that `total` matches and `part` does not, and one that `part` matches; None if none is found."""
    some = list(itertools.islice(_candidates(total, part), _MOST))
    rest = next((one for one in some if matches(total, one) and not matches(part, one)), None)
    mine = [one for one in some if matches(part, one)]
    parts = next((one for one in mine if matches(total, one)), mine[0] if mine else None)
    return None if rest is None or parts is None else (rest, parts)


def _candidates(*selectors: str) -> Iterator[Labels]:
    matchers = [matcher for selector in selectors for matcher in read_selector(selector)]
    values = {name: _values([item for item in matchers if item.label == name]) for name, _, _ in matchers}
    for one in itertools.product(*values.values()):
        yield {name: value for name, value in zip(values, one, strict=True) if value}


def _values(matchers: Sequence[Matcher]) -> list[str]:
    """Return values of a label that make a difference: those that are named, one that is not, none."""
    named = [text for item in matchers for text in (item.text.split("|") if "~" in item.sign else [item.text])]
    return list(dict.fromkeys([*(text for text in named if re.fullmatch(r"[\w:/.-]*", text)), _OTHER, ""]))
