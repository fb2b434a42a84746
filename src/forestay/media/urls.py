"""How media are named: inside stored results, and in the URLs that leave the platform.

Stored results write `forestay-media://{media_id}/{file_name}`, so that they hold no host name; whoever sends a result
out replaces that form by a URL under the base its receiver can reach. Decides nothing about who may read what: a media
id is 24 random bytes and is itself the right to read. Callers: gateway and webhooks (rewrite), workers (recognise).
"""

import re
import urllib.parse
from collections.abc import Mapping

SCHEME = "forestay-media://"
MEDIA_ID_BYTES = 24

_MEDIA_ID = r"[A-Za-z0-9_-]{32,48}"
_STORED = re.compile(rb"forestay-media://(?=" + _MEDIA_ID.encode() + rb"/)")
_STORED_NAMED = re.compile(rb"forestay-media://(" + _MEDIA_ID.encode() + rb")/[A-Za-z0-9._-]+")
_STORED_WHOLE = re.compile(rf"{SCHEME}({_MEDIA_ID})/[^/?#]*")
_OWN_PATH = re.compile(rf"(?:/[^/]+)?/files/({_MEDIA_ID})/[^/]+")
_SAFE_BASE = re.compile(r"https?://[A-Za-z0-9._~:\[\]/%-]+/")


def stored_url(media_id: str, file_name: str) -> str:
    """Return the form that stored results use; `file_name` must be a safe one (see `formats.safe_file_name`)."""
    return f"{SCHEME}{media_id}/{file_name}"


def rewrite_media_urls(body: bytes, base: str) -> bytes:
    """Replace every stored media URL in `body` by `{base}{media_id}/{file_name}`.

    `base` ends in a slash, for example `https://v3.fal.media/files/`. It often carries a Host header, so a base with
    characters that could break out of a JSON string is refused with ValueError.
    """
    if not _SAFE_BASE.fullmatch(base):
        raise ValueError(f"{base!r} is no base for media URLs; expected http(s)://host[:port]/path/")
    return _STORED.sub(base.encode(), body)


def stored_ids(body: bytes) -> list[str]:
    """Return the ids of all stored media that `body` names, each once, in order."""
    return list(dict.fromkeys(match.decode() for match in _STORED_NAMED.findall(body)))


def replace_stored(body: bytes, urls: Mapping[str, str]) -> bytes:
    """Replace every stored media URL in `body` by the one that `urls` has for its id; others stay.

    The URLs go into JSON strings as they are: they must be ASCII without quotes and backslashes.
    """

    def replaced(match: re.Match[bytes]) -> bytes:
        url = urls.get(match[1].decode())
        return match[0] if url is None else url.encode("ascii")

    return _STORED_NAMED.sub(replaced, body)


def own_media_id(url: str) -> str | None:
    """Return the media id when `url` has the form of one of our own media, else None.

    The host is not compared: the same media answer under several names. The id must still be found in the store.
    """
    if whole := _STORED_WHOLE.fullmatch(url):
        return whole.group(1)
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"}:
        return None
    match = _OWN_PATH.fullmatch(parts.path)
    return match.group(1) if match else None
