"""Our own OpenAPI 3.1 document of the wire: every operation with every status that it can answer.

Served at `/openapi.json`; schemathesis holds the gateway to it. The models' own inputs are described by the models.
Pure data, built once. Called by `mounts`.
"""

from collections.abc import Mapping, Sequence

import forestay

Node = dict[str, object]
JSON = "application/json"

_TEXTS: Mapping[int, str] = {
    101: "The session is open",
    200: "Done",
    201: "Issued",
    202: "Accepted, or not finished yet",
    204: "Nothing to say",
    206: "A part of the file",
    304: "Unchanged",
    400: "A header, a query field or the state does not allow it",
    401: "No credential, a wrong one, or an app that this key may not call",
    403: "The key lacks the scope, or is suspended",
    404: "Unknown path, app or request",
    405: "Another method is meant",
    408: "The body did not arrive in time",
    409: "It cannot be appealed, or has been",
    410: "No longer kept, as its caller asked",
    412: "The target is not one of fal's hosts",
    413: "The body is too large",
    416: "No such range",
    422: "The model would refuse this input, or the guard has blocked it",
    424: "The caller's own bucket did not take an output",
    429: "A limit is reached",
    431: "The headers are too large",
    499: "Cancelled by the caller",
    500: "An internal error, named by x-fal-request-id",
    502: "The model's answer was incomplete",
    503: "No replica can take it now",
    504: "Not started, or not finished, in time",
}
_MODEL = (200, 400, 401, 403, 404, 405, 408, 413, 422, 424, 429, 431, 499, 500, 502, 503, 504)
_SUBMIT = (200, 400, 401, 403, 404, 405, 408, 413, 422, 429, 431, 500, 503)
_OWN_READ = (200, 401, 403, 405, 431, 500, 503)
_APPEAL = (201, 401, 403, 404, 405, 408, 409, 422, 429, 431, 500, 503)
_ASK = (400, 401, 403, 404, 405, 431, 500, 503)


def document() -> Node:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Forestay gateway",
            "version": forestay.__version__,
            "description": "fal's client protocol, under path prefixes; host names and ports route the same way.",
        },
        "paths": {**_queue_paths(), **_run_paths(), **_file_paths(), **_own_paths()},
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`Key <id>:<secret>`",
                }
            },
        },
        "security": [{"key": []}],
    }


def _queue_paths() -> Node:
    base, one = "/queue/{owner}/{alias}", "/queue/{owner}/{alias}/requests/{request_id}"
    app = [_path_field("owner"), _path_field("alias")]
    request = [*app, _path_field("request_id", {"type": "string", "format": "uuid"})]
    logs = _query_field("logs", {"type": "string", "enum": ["0", "1", "true", "false"]})
    model_result = (*_MODEL, 410)
    return {
        base: {"post": _operation("submit", _SUBMIT, [*app, *_SUBMIT_FIELDS], body=True, ok="SubmitAnswer")},
        f"{base}/{{endpoint}}": {
            "post": _operation(
                "submit_endpoint", _SUBMIT, [*app, _ENDPOINT, *_SUBMIT_FIELDS], body=True, ok="SubmitAnswer"
            )
        },
        f"{one}/status": {"get": _operation("status", (200, 202, *_ASK), [*request, logs], ok="StatusAnswer")},
        f"{one}/status/stream": {"get": _operation("status_stream", (200, *_ASK), [*request, logs], media=_EVENTS)},
        one: {"get": _operation("result", tuple(sorted(set(model_result))), request)},
        f"{one}/response": {"get": _operation("response", tuple(sorted(set(model_result))), request)},
        f"{one}/cancel": {"put": _operation("cancel", (202, *_ASK), request, ok="Plain")},
    }


def _run_paths() -> Node:
    app = [_path_field("owner"), _path_field("alias")]
    return {
        "/run/{owner}/{alias}": {"post": _operation("run", _MODEL, [*app, *_CALL_FIELDS], body=True)},
        "/run/{owner}/{alias}/stream": {
            "post": _operation("stream", _MODEL, [*app, *_CALL_FIELDS], body=True, media=_EVENTS)
        },
        "/run/{owner}/{alias}/{endpoint}": {
            "post": _operation("run_endpoint", _MODEL, [*app, _ENDPOINT, *_CALL_FIELDS], body=True)
        },
    }


def _file_paths() -> Node:
    media = [_path_field("media_id"), _path_field("name")]
    upload = (200, 400, 401, 403, 404, 405, 408, 413, 431, 499, 500, 503)
    issue = (201, 400, 401, 403, 405, 408, 413, 422, 431, 500, 503)
    return {
        "/rest/tokens/": {"post": _operation("token", issue, body=True)},
        "/rest/tokens/realtime": {"post": _operation("token_realtime", issue, body=True)},
        "/rest/storage/auth/token": {"post": _operation("upload_token", upload, body=True)},
        "/rest/storage/upload/initiate": {"post": _operation("upload_initiate", upload, body=True)},
        "/rest/storage/upload/initiate-multipart": {"post": _operation("upload_initiate_multipart", upload, body=True)},
        "/rest/.well-known/jwks.json": {"get": _operation("jwks", (200, 405, 431, 500), public=True)},
        "/cdn/files/upload": {"post": _operation("upload", upload, body=True)},
        "/cdn/files/upload/multipart": {"post": _operation("upload_multipart", upload, body=True)},
        "/cdn/files/{media_id}/{name}": {
            "get": _operation(
                "download", (200, 206, 304, 404, 405, 416, 431, 500, 503), media, public=True, media="*/*"
            )
        },
    }


def _own_paths() -> Node:
    return {
        "/health": {"get": _operation("health", (200, 405, 431, 500), public=True)},
        "/ready": {"get": _operation("ready", (200, 405, 431, 500, 503), public=True)},
        "/openapi.json": {"get": _operation("openapi", (200, 405, 431, 500), public=True)},
        "/standing": {"get": _operation("standing", (200, 401, 403, 405, 431, 500, 503))},
        "/appeals": {"get": _operation("appeals", _OWN_READ)},
        "/appeals/{request_id}": {
            "get": _operation("appeal_of", (*_OWN_READ, 404), [_path_field("request_id")]),
            "post": _operation("appeal_request", _APPEAL, [_path_field("request_id")], body=True),
        },
        "/standing/appeal": {
            "post": _operation("appeal", (201, 401, 403, 404, 405, 408, 413, 422, 431, 500, 503), body=True)
        },
    }


def _operation(  # noqa: PLR0913 - one row of a table
    name: str,
    statuses: Sequence[int],
    fields: Sequence[Node] = (),
    *,
    body: bool = False,
    ok: str | None = None,
    media: str = JSON,
    public: bool = False,
) -> Node:
    described: Node = {
        "operationId": name,
        "parameters": list(fields),
        "responses": {str(code): _response(code, ok, media) for code in statuses},
    }
    if body:
        described["requestBody"] = {"required": False, "content": {JSON: {"schema": True}}}
    if public:
        described["security"] = []
    return described


def _response(code: int, ok: str | None, media: str) -> Node:
    described: Node = {"description": _TEXTS[code]}
    if code in {204, 304}:
        return described
    described["headers"] = {"x-fal-request-id": {"schema": {"type": "string"}}}
    if code < 400:
        schema: object = {"$ref": f"#/components/schemas/{ok}"} if ok else True
        described["content"] = {media: {"schema": schema}}
        if media != JSON:
            described["content"] = {media: {"schema": True}, JSON: {"schema": True}}
    else:
        described["content"] = {JSON: {"schema": True}}
    return described


def _path_field(name: str, schema: Node | None = None) -> Node:
    return {"name": name, "in": "path", "required": True, "schema": schema or {"type": "string", "minLength": 1}}


def _query_field(name: str, schema: Node) -> Node:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _header_field(name: str, schema: Node) -> Node:
    return {"name": name, "in": "header", "required": False, "schema": schema}


_EVENTS = "text/event-stream"
_ENDPOINT = _path_field("endpoint")
_SECONDS: Node = {"type": "number", "exclusiveMinimum": 0.1, "maximum": 2_592_000}
_CALL_FIELDS = [
    _header_field("X-Fal-Request-Timeout", _SECONDS),
    _header_field("X-Fal-Runner-Hint", {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"}),
    _header_field("X-Fal-Object-Lifecycle-Preference", {"type": "string", "contentMediaType": JSON}),
]
_SUBMIT_FIELDS = [
    *_CALL_FIELDS,
    _header_field("X-Forestay-Deadline", _SECONDS),
    _header_field("X-Fal-Queue-Priority", {"type": "string", "enum": ["normal", "low"]}),
    _header_field("X-Fal-No-Retry", {"type": "string", "enum": ["0", "1", "true", "yes"]}),
    _header_field("X-Fal-Retry-Config", {"type": "string", "contentMediaType": JSON}),
    _header_field("X-Fal-Store-IO", {"type": "string", "enum": ["0", "1"]}),
    _header_field("Idempotency-Key", {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}),
    _query_field("fal_webhook", {"type": "string", "format": "uri"}),
    _query_field("fal_max_queue_length", {"type": "integer", "minimum": 0, "maximum": 1_000_000_000}),
]
_URLS: Node = {name: {"type": "string"} for name in ("request_id", "response_url", "status_url", "cancel_url")}
_SCHEMAS: Node = {
    "SubmitAnswer": {
        "type": "object",
        "properties": {
            "status": {"const": "IN_QUEUE"},
            **_URLS,
            "gateway_request_id": {"type": "string"},
            "queue_position": {"type": "integer", "minimum": 0},
        },
        "required": ["status", *_URLS, "queue_position"],
    },
    "StatusAnswer": {
        "type": "object",
        "properties": {
            "status": {"enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
            **_URLS,
            "queue_position": {"type": "integer", "minimum": 0},
            "logs": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/LogEntry"}},
            "metrics": {"type": "object", "properties": {"inference_time": {"type": ["number", "null"]}}},
            "error": {"type": "string"},
            "error_type": {"type": "string"},
        },
        "required": ["status", *_URLS, "logs", "metrics"],
    },
    "LogEntry": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("message", "level", "source", "timestamp")},
        "required": ["message", "level", "source", "timestamp"],
    },
    "Plain": {
        "type": "object",
        "properties": {
            "status": {"enum": ["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]},
            "detail": {"type": "string"},
        },
        "required": ["status"],
    },
}
