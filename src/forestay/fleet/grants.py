"""What a key may do: verbs on models, and privileges that let its headers through to a model.

Pure values. A key without grants may do everything that its scope opens: keys made before grants existed have none.
`Caller.may` asks `covers`; the gateway decides where each verb is asked for. Who may hand out what is not decided here.
"""

import dataclasses
import enum
import re
from collections.abc import Sequence

from forestay.errors import UsageError
from forestay.ids import ModelId

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_PATTERN = re.compile(rf"\*|{_PART}/(?:\*|{_PART})")
MAX_GRANTS = 20
MAX_MODELS = 100


class Verb(enum.StrEnum):
    """What is done with a model, or (upload) with the store."""

    SUBMIT = "submit"
    RUN = "run"
    STREAM = "stream"
    REALTIME = "realtime"
    READ = "read"  # status and result of a request
    CANCEL = "cancel"
    UPLOAD = "upload"


class Privilege(enum.StrEnum):
    """A right to state headers that a model obeys; see `gateway/options` for which."""

    DISABLE_FILTER = "disable_filter"
    CONTROL_HEADERS = "control_headers"


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """Verbs on models; an empty set means all. Patterns: `owner/alias`, `owner/*`, `*`; of tokens also `*/alias`."""

    models: frozenset[str] = frozenset()
    verbs: frozenset[Verb] = frozenset()

    def covers(self, verb: Verb, model_id: ModelId | None) -> bool:
        """Tell whether this grant opens `verb` on the model; None: the verb concerns no model (upload)."""
        if self.verbs and verb not in self.verbs:
            return False
        if model_id is None or not self.models or model_id in self.models or "*" in self.models:
            return True
        owner, _, alias = model_id.partition("/")
        return f"{owner}/*" in self.models or f"*/{alias}" in self.models


def check_grants(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    """Check grants from outside; UsageError names what is wrong. None may be empty: that would open everything."""
    if len(grants) > MAX_GRANTS:
        raise UsageError("grants", f"at most {MAX_GRANTS} of them")
    for grant in grants:
        if not grant.models and not grant.verbs:
            raise UsageError("grants", "each names models, verbs or both; leave all of them out for everything")
        if len(grant.models) > MAX_MODELS:
            raise UsageError("grants", f"at most {MAX_MODELS} models each")
        for pattern in sorted(grant.models):
            if _PATTERN.fullmatch(pattern) is None:
                raise UsageError("grants", f"{pattern[:80]!r} is none of owner/alias, owner/* and *")
    return tuple(grants)
