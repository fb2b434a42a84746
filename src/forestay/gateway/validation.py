"""The model's own JSON schema, checked before anything is queued, answered in pydantic's 422 shape.

Compiled once per revision and endpoint by jsonschema-rs from what the model says of itself (`revision.openapi`), after
`lax_schema` has loosened it to what pydantic accepts: this gate refuses only what the model itself would refuse. A
schema that does not compile is not enforced (the model still validates) and that is counted. Called by submit, direct
and streams.
"""

import re
from collections.abc import Iterator, Mapping
from typing import cast

import jsonschema_rs
import msgspec

from forestay.fleet.model import Revision
from forestay.gateway.lax_schema import MARK, relax
from forestay.gateway.protocol import FieldError
from forestay.gateway.pydantic_words import translate
from forestay.gateway.responses import Reply, field_errors
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import GUARD_OPEN, Metrics
from forestay.values import hot_value

_MAX_ERRORS = 50
_MAX_INPUT = 4096  # bytes of an input that an error repeats
_MAX_CONTRACTS = 256
_BYTE = re.compile(r"\(byte (\d+)\)")
_LOG = logger("gateway")
_JSON = msgspec.json.Decoder(strict=True)

Kind = jsonschema_rs.ValidationErrorKind


@hot_value
class Parsed:
    """A body that passed, as plain values; None where there was none."""

    value: object


class Contract:
    """What one revision accepts: its endpoints, and a validator for each, compiled when first needed."""

    def __init__(self, revision: Revision, metrics: Metrics) -> None:
        self._revision = revision
        self._metrics = metrics
        self._paths = _mapping(_mapping(revision.openapi).get("paths"))
        self._templates = [(_template(path), path) for path in self._paths if "{" in path]
        self._declared = {endpoint.path: endpoint.kind for endpoint in revision.spec.endpoints}
        self._checks: dict[str, _Check] = {}

    def has_endpoint(self, endpoint: str) -> bool:
        """Tell whether a call to `endpoint` can be meant for this revision; one that says nothing accepts all."""
        if endpoint in self._declared or self._path_of(endpoint) is not None:
            return True
        return not self._paths and not self._declared

    def is_realtime(self, endpoint: str) -> bool:
        """Tell whether a websocket to `endpoint` may be opened: OpenAPI has no websockets, so absence forbids none."""
        kind = self._declared.get(endpoint)
        return kind == "realtime" or (kind is None and "realtime" not in self._declared.values())

    def offers_cancel(self, endpoint: str) -> bool:
        """Tell whether the model has a cancel endpoint below `endpoint`."""
        return self._path_of(f"{endpoint.rstrip('/')}/cancel") is not None

    def check(self, endpoint: str, body: bytes) -> Reply | None:
        """Return the 422 for a body that the model would refuse, None when it may go on."""
        read = self.read(endpoint, body)
        return read if isinstance(read, Reply) else None

    def read(self, endpoint: str, body: bytes) -> "Reply | Parsed":
        """Return the parsed body, for the guards that follow, or the 422 for one that the model would refuse."""
        check = self._check_of(endpoint)
        if not body:
            return field_errors([_MISSING_BODY]) if check.required else Parsed(None)
        try:
            value: object = _JSON.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return field_errors([_malformed(str(error))], "malformed")
        except RecursionError:
            return field_errors([_malformed("nested too deeply")], "malformed")
        return check.judge(value) or Parsed(value)

    def takes_json(self, endpoint: str) -> bool:
        """Tell whether the model says that a call of `endpoint` carries JSON."""
        return self._check_of(endpoint).declared

    def _check_of(self, endpoint: str) -> "_Check":
        check = self._checks.get(endpoint)
        if check is None:
            check = self._compile(endpoint)
            if len(self._checks) < _MAX_CONTRACTS:
                self._checks[endpoint] = check
        return check

    def _path_of(self, endpoint: str) -> str | None:
        if endpoint in self._paths:
            return endpoint
        return next((path for template, path in self._templates if template.fullmatch(endpoint)), None)

    def _compile(self, endpoint: str) -> "_Check":
        path = self._path_of(endpoint)
        operation = _mapping(_mapping(self._paths.get(path or "")).get("post"))
        body = _mapping(operation.get("requestBody"))
        schema = _mapping(_mapping(body.get("content")).get("application/json")).get("schema")
        required = bool(body.get("required")) and schema is not None
        if schema is None:
            return _Check(None, {}, required, declared=False)
        root = _root(schema, _mapping(self._revision.openapi))
        try:
            return _Check(_validator(root), root, required, declared=True)
        except (ValueError, RecursionError) as error:
            self._metrics.add(GUARD_OPEN, "schema")
            _LOG.warning(
                "gateway.schema_not_enforced",
                revision_id=self._revision.revision_id,
                endpoint=endpoint,
                reason=str(error)[:500],
            )
            return _Check(None, {}, required, declared=True)


class _Check:
    """One compiled endpoint."""

    def __init__(
        self,
        validator: jsonschema_rs.Draft202012Validator | None,
        root: Mapping[str, object],
        required: bool,
        *,
        declared: bool,
    ) -> None:
        self._validator = validator
        self._root = root
        self.required = required
        self.declared = declared

    def judge(self, value: object) -> Reply | None:
        if self._validator is None:
            return None
        try:
            if self._validator.is_valid(value):
                return None
            found = [item for error in self._validator.iter_errors(value) for item in self._explain(error)]
        except ValueError:
            return None  # deeper than the validator goes: left to the model
        return field_errors(found[:_MAX_ERRORS]) if found else None

    def _explain(self, error: jsonschema_rs.ValidationError) -> Iterator[FieldError]:
        kind = error.kind
        if isinstance(kind, Kind.AnyOf | Kind.OneOfNotValid):
            yield from self._explain_union(kind.context)
        elif not _forgiven(error):
            declared = self._declared_type(error)
            yield from (_bounded(item) for item in translate(error, declared))

    def _explain_union(self, context: list[list[jsonschema_rs.ValidationError]]) -> Iterator[FieldError]:
        branches = [[item for error in branch for item in self._explain(error)] for branch in context]
        if all(branches):
            telling = [items for items in branches if not all(item.type == "none_required" for item in items)]
            for items in telling or branches:
                yield from items

    def _declared_type(self, error: jsonschema_rs.ValidationError) -> str:
        node: object = self._root
        for step in error.schema_path[:-1]:
            node = cast("list[object]", node)[int(step)] if isinstance(node, list) else _mapping(node).get(str(step))
        declared = _mapping(node).get(MARK)
        return declared if isinstance(declared, str) else ""


class Contracts:
    """The contracts of the revisions that are routed, bounded, by revision."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[str, Contract] = {}

    def of(self, revision: Revision) -> Contract:
        """Return the contract of an (immutable) revision."""
        contract = self._known.get(revision.revision_id)
        if contract is None:
            contract = Contract(revision, self._metrics)
            if len(self._known) >= _MAX_CONTRACTS:
                del self._known[next(iter(self._known))]
            self._known[revision.revision_id] = contract
        return contract


def _validator(root: dict[str, object]) -> jsonschema_rs.Draft202012Validator:
    """Compile with the linear-time regex engine; patterns that it lacks (look-around) get a bounded one."""
    try:
        return jsonschema_rs.Draft202012Validator(
            root, offline=True, validate_formats=False, pattern_options=jsonschema_rs.RegexOptions()
        )
    except ValueError:
        bounded = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
        return jsonschema_rs.Draft202012Validator(root, offline=True, validate_formats=False, pattern_options=bounded)


def _root(schema: object, openapi: Mapping[str, object]) -> dict[str, object]:
    """Return a loosened document in which the references of `schema` resolve."""
    components = _mapping(_mapping(openapi.get("components")).get("schemas"))
    return {
        "allOf": [relax(schema)],
        "components": {"schemas": {name: relax(node) for name, node in components.items()}},
        "x-forestay-anything": True,
    }


def _template(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", path)
    return re.compile("[^/]+".join(re.escape(part) for part in parts))


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


_MISSING_BODY = FieldError(["body"], "Field required", "missing")


def _malformed(reason: str) -> FieldError:
    """FastAPI's own shape for JSON that does not parse."""
    position = _BYTE.search(reason)
    return FieldError(
        loc=["body", int(position.group(1)) if position else 0],
        msg="JSON decode error",
        type="json_invalid",
        input={},
        ctx={"error": reason},
    )


def _forgiven(error: jsonschema_rs.ValidationError) -> bool:
    """Text that a model may strip first (`str_strip_whitespace` does not show in its schema) is left to the model."""
    text = error.instance
    return (
        isinstance(text, str)
        and text != text.strip()
        and isinstance(error.kind, Kind.MaxLength | Kind.Pattern | Kind.Enum | Kind.Constant)
    )


def _bounded(error: FieldError) -> FieldError:
    """Repeat no large input."""
    try:
        large = len(msgspec.json.encode(error.input)) > _MAX_INPUT
    except (TypeError, RecursionError):
        large = True
    return msgspec.structs.replace(error, input=None) if large else error
