"""How a command speaks to a running platform: where it is, which key, and plain words when it does not answer.

Found by FORESTAY_URL and FORESTAY_KEY, else by the saved profile (`forestay up`, `forestay profile save` and `forestay
login` write it); a session that `login` saved goes before a saved key.
It knows HTTP and the admin API's error shape; it knows no command. Synchronous on purpose: a command asks and waits.
"""

import dataclasses
import http.client
import json
import pathlib
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import IO, cast

from forestay.data_dir import write_private
from forestay.errors import ForestayError, Refused, Unavailable, UsageError
from forestay.settings import client_settings

_KEPT = "/?&=%:@,;+$!*'()~"  # of a path and its query as commands write them; whatever else a person typed is quoted
_MEND = "start one with `forestay up`, or point FORESTAY_URL and FORESTAY_KEY at yours"


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """Where a platform is and the key or session to use; kept in a file that only its owner may read."""

    url: str
    key: str = dataclasses.field(repr=False)
    ca_file: str = ""
    session: str = dataclasses.field(default="", repr=False)  # of a person: goes before the key

    @property
    def authorization(self) -> str:
        """Return the header's value by which commands are proven, empty when there is nothing to show."""
        if self.session:
            return f"Bearer {self.session}"
        return f"Key {self.key}" if self.key else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whatever its status."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes

    def json(self) -> object:
        """Return the parsed body; a body that is not JSON raises Unavailable (something else answers there)."""
        try:
            return json.loads(self.body)
        except ValueError:
            shown = self.body[:80].decode("utf-8", "replace")
            message = f"expected JSON from the platform, got {shown!r} (HTTP {self.status}); is FORESTAY_URL right?"
            raise Unavailable(message) from None


class Rejected(Refused):
    """The platform answered with an error; `status` and `detail` say which."""

    def __init__(self, message: str, *, status: int, detail: object) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class PlatformClient:
    """A small client for the admin API (and the wire, for `forestay request`)."""

    def __init__(self, profile: Profile, *, timeout_seconds: float = 30.0) -> None:
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self._parts = _address(profile.url)
        if not (profile.authorization.isascii() and (profile.authorization or " ").isprintable()):
            raise UsageError("FORESTAY_KEY", "holds characters that no key has; copy it anew, without line ends")

    def get(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """GET and return the parsed JSON; an error status raises Rejected."""
        return self._checked("GET", path, query=query)

    def get_bytes(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """GET and return the body as it is; an error status raises Rejected."""
        reply = self.send("GET", _target(path, query))
        if reply.status >= 400:
            raise _rejected("GET", path, reply)
        return reply.body

    def post(self, path: str, value: object = None) -> object:
        """POST `value` as JSON and return the parsed answer; an error status raises Rejected."""
        return self._checked("POST", path, value=value)

    def put(self, path: str, body: bytes | IO[bytes] | Iterable[bytes], content_type: str) -> object:
        """PUT raw bytes (a file is streamed) and return the parsed answer; an error status raises Rejected."""
        return self._checked("PUT", path, body=body, headers={"content-type": content_type})

    def delete(self, path: str) -> object:
        """DELETE and return the parsed answer; an error status raises Rejected."""
        return self._checked("DELETE", path)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | IO[bytes] | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Send one request and return whatever is answered; raises Unavailable when nothing answers."""
        connection = self._connect(timeout_seconds or self.timeout_seconds)
        proof = {"authorization": self.profile.authorization} if self.profile.authorization else {}
        sent = {**proof, "accept": "application/json", **(headers or {})}
        try:
            target = urllib.parse.quote(self._parts.path.rstrip("/") + path, safe=_KEPT, errors="replace")
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            answered = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answered, answer.read())
        except ssl.SSLError as error:
            message = f"no trusted TLS at {self.profile.url} ({error.reason}); set FORESTAY_CA_FILE to its ca.pem"
            raise Unavailable(message) from error
        except TimeoutError:
            waited = timeout_seconds or self.timeout_seconds
            message = f"the platform at {self.profile.url} did not answer {method} {path} within {waited:g} s"
            raise Unavailable(message) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            message = f"no platform answers at {self.profile.url} ({reason}); {_MEND}"
            raise Unavailable(message) from error
        finally:
            connection.close()

    def _connect(self, timeout_seconds: float) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, self._parts.port, timeout=timeout_seconds)
        try:
            context = ssl.create_default_context(cafile=self.profile.ca_file or None)
        except OSError as error:
            raise UsageError("FORESTAY_CA_FILE", f"cannot read {self.profile.ca_file}: {error.strerror}") from error
        return http.client.HTTPSConnection(host, self._parts.port, timeout=timeout_seconds, context=context)

    def _checked(
        self,
        method: str,
        path: str,
        *,
        value: object = None,
        body: bytes | IO[bytes] | Iterable[bytes] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> object:
        sent = dict(headers or {})
        if value is not None:
            body = json.dumps(value).encode()
            sent["content-type"] = "application/json"
        reply = self.send(method, _target(path, query), body=body, headers=sent)
        if reply.status < 400:
            return reply.json() if reply.body else None
        raise _rejected(method, path, reply)


def _address(url: str) -> urllib.parse.SplitResult:
    """Take a platform's URL apart; UsageError says what is wrong with it, without a password that stands in it."""
    try:
        parts = urllib.parse.urlsplit(url)
        named = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        good = named and url.isprintable() and " " not in url
    except ValueError:  # no IPv6 address, or no port
        raise UsageError("FORESTAY_URL", f"{url!r} is not a URL such as http://127.0.0.1:8080") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError("FORESTAY_URL", "holds a name or password, which would be shown; give the key in FORESTAY_KEY")
    if not good:
        raise UsageError("FORESTAY_URL", f"{url!r} is not a URL such as http://127.0.0.1:8080")
    return parts


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urllib.parse.urlencode(query, errors='replace')}" if query else path


def _rejected(method: str, path: str, reply: Reply) -> ForestayError:
    try:
        value: object = json.loads(reply.body)
    except ValueError:
        value = reply.body[:200].decode("utf-8", "replace")
    detail = cast("dict[str, object]", value).get("detail", reply.body[:200]) if isinstance(value, dict) else value
    if reply.status == 401:
        message = f"{_sentence(detail)} (HTTP 401); run `forestay login`, or set FORESTAY_KEY to an ADMIN key"
    elif reply.status == 403:
        message = f"{_sentence(detail)} (HTTP 403 from {method} {path})"
    else:
        message = f"{_sentence(detail)} (HTTP {reply.status} from {method} {path})"
    return Rejected(message, status=reply.status, detail=detail)


def _sentence(detail: object) -> str:
    """Render the error's detail, which is a text or pydantic's list of faults, as one line."""
    if not isinstance(detail, list):
        return str(detail)
    faults: list[str] = []
    for item in cast("list[object]", detail):
        if isinstance(item, dict):
            fault = cast("dict[str, object]", item)
            place = ".".join(str(part) for part in cast("list[object]", fault.get("loc") or ()))
            faults.append(f"{place}: {fault.get('msg', '')}")
        else:
            faults.append(str(item))
    return "; ".join(faults)


def connect(timeout_seconds: float | None = None) -> PlatformClient:
    """Return a client for the platform that the environment or the saved profile names."""
    settings = client_settings()
    saved = load_profile(pathlib.Path(settings.profile_file))
    url = settings.url or (saved.url if saved else "")
    fits = saved is not None and (not settings.url or settings.url == saved.url)
    key = settings.key or (saved.key if saved and fits else "")
    session = saved.session if saved and fits and not settings.key else ""
    if not url:
        raise UsageError("FORESTAY_URL", f"no platform is known; {_MEND}")
    if not key and not session:
        raise UsageError("FORESTAY_KEY", f"no key is known for {url}; set it to an ADMIN key, or run `forestay login`")
    ca_file = settings.ca_file or (saved.ca_file if saved else "")
    return PlatformClient(
        Profile(url, key, ca_file, session), timeout_seconds=timeout_seconds or settings.timeout_seconds
    )


def load_profile(path: pathlib.Path) -> Profile | None:
    """Read the saved profile; None when there is none."""
    try:
        value = cast("dict[str, object]", json.loads(path.read_text()))
        ca_file, session = str(value.get("ca_file", "")), str(value.get("session", ""))
        return Profile(str(value["url"]), str(value["key"]), ca_file, session)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(str(path), "is not a profile; remove it or run `forestay profile save`") from None


def save_profile(path: pathlib.Path, profile: Profile) -> None:
    """Write the profile in one step, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(dataclasses.asdict(profile), indent=2) + "\n")
