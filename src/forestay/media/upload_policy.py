"""The caller's own bucket: reading `X-App-Fal-Upload-Policy` and writing the form that it describes.

The header carries what `generate_presigned_post` of S3's clients returns: a URL and form fields signed for it
(https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html). Pure. Decides which policies are
taken: one URL of a bucket that may be called (`targets`), plain fields, a key with `${filename}` in it, so that two
outputs never meet. Called by the gateway at submit and by whoever sends a file (`bucket`).
"""

import dataclasses
import re
import urllib.parse
from collections.abc import Iterator
from typing import cast

import msgspec

from forestay.media.targets import read_target

MAX_POLICY = 16 * 1024
MAX_FIELDS = 64
PLACEHOLDER = "${filename}"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEY, _CONTENT_TYPE, _FILE = "key", "content-type", "file"


@dataclasses.dataclass(frozen=True, slots=True)
class UploadPolicy:
    """Where the outputs of a request go, and the signed fields that let them in."""

    url: str  # without query and fragment
    fields: tuple[tuple[str, str], ...]  # in their order; a name may stand there several times


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """One upload, ready to be sent."""

    fields: tuple[tuple[str, str], ...]
    access_url: str  # where the file can be read afterwards


def parse_upload_policy(text: str, *, allow_private: bool) -> UploadPolicy | str:
    """Read the header's JSON; a text says what is wrong with it.

    `allow_private` opens private networks and plain http, for buckets on one's own machine.
    """
    try:
        raw: object = msgspec.json.decode(text) if text.isascii() and len(text) <= MAX_POLICY else None
    except (msgspec.DecodeError, RecursionError):
        raw = None
    policy = cast("dict[str, object]", raw) if isinstance(raw, dict) else {}
    url, fields = policy.get("url"), policy.get("fields")
    if not isinstance(url, str) or not isinstance(fields, dict):
        return f'must be a JSON object {{"url": ..., "fields": {{...}}}} in at most {MAX_POLICY} ASCII characters'
    reason = _url_fault(url, allow_private=allow_private)
    if reason is not None:
        return f"url {reason}"
    read = list(_fields(cast("dict[str, object]", fields)))
    fault = next((item for item in read if isinstance(item, str)), None) or _fields_fault(cast("_Pairs", read))
    return fault or UploadPolicy(url, tuple(cast("_Pairs", read)))


_Pairs = list[tuple[str, str]]


def form_for(policy: UploadPolicy, file_name: str, content_type: str, unique: str) -> Form | str:
    """Return the form that uploads one file; a text says why the policy does not allow it.

    `unique` goes before the file's name in the key: one policy serves all outputs of a request.
    """
    signed = next((value for name, value in policy.fields if name.lower() == _CONTENT_TYPE), None)
    if signed not in {None, content_type}:
        return f"the policy is signed for files of type {signed!r}, and this one is {content_type!r}"
    name = f"{unique}-{file_name}"
    fields = [(field, value.replace(PLACEHOLDER, name) if field == _KEY else value) for field, value in policy.fields]
    if signed is None:
        fields.append(("Content-Type", content_type))
    key = next(value for field, value in fields if field == _KEY)
    return Form(tuple(fields), f"{policy.url.rstrip('/')}/{urllib.parse.quote(key, safe='/~')}")


def _url_fault(url: str, *, allow_private: bool) -> str | None:
    target = read_target(url, allow_private)
    if isinstance(target, str):
        return f"cannot be called: {target}"
    if target.scheme != "https" and not allow_private:
        return "must be an https URL"
    parts = urllib.parse.urlsplit(url)
    if not url.isascii() or '"' in url or "<" in url:
        return "must be plain ASCII"
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return "must have neither query nor fragment"
    path = urllib.parse.unquote(parts.path).replace("\\", "/").removeprefix("/").removesuffix("/")
    segments = path.split("/") if path else []
    if parts.path.startswith("//") or any(segment in {"", ".", ".."} for segment in segments):
        return "must not hold empty, '.' or '..' path segments"
    return None


def _fields(fields: dict[str, object]) -> Iterator[tuple[str, str] | str]:
    """Yield the fields as texts, in their order; a text alone says what is wrong with one."""
    for name, value in fields.items():
        if not _NAME.fullmatch(name) or name.lower() == _FILE:
            yield f"fields.{name[:80]!r} is not the name of a form field (letters, digits, '.', '-', '_')"
            return
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        for item in values:
            text = _text(item)
            if text is None or (name.lower() in {_KEY, _CONTENT_TYPE} and not isinstance(value, str)):
                yield f"fields.{name} must be a text"
                return
            yield name, text


def _text(value: object) -> str | None:
    """Write a scalar as JSON does; None when it is none, or holds what no form can carry."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        return None
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return None if any(char in text for char in "\r\n\0") else text


def _fields_fault(pairs: _Pairs) -> str | None:
    names = [name.lower() for name, _ in pairs]
    key = next((value for name, value in pairs if name == _KEY), "")
    segments = key.split("/")
    if len(pairs) > MAX_FIELDS:
        return f"has more than {MAX_FIELDS} fields"
    if names.count(_KEY) != 1 or names.count(_CONTENT_TYPE) > 1:
        return "must have one field `key`, in lower case, and at most one Content-Type"
    if PLACEHOLDER not in key:
        return f"fields.key must hold {PLACEHOLDER}, or the outputs of a request would overwrite one another"
    if key.startswith("/") or "." in segments or ".." in segments:
        return "fields.key must not begin with '/' nor hold '.' or '..' segments"
    return None
