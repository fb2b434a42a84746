"""The command line as a whole: light help, one-line errors, JSON, profiles, a client that says what is wrong."""

import http.server
import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from tests.platform.platform import run_cli

from forestay.cli.client import PlatformClient, Profile, Rejected, load_profile, save_profile
from forestay.errors import Unavailable, UsageError


def test_help_lists_the_commands_without_loading_what_they_need() -> None:
    """A person who asks for help does not wait for database drivers, servers or cryptography."""
    program = (
        "import sys\n"
        "from forestay.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'asyncpg', 'granian', 'aiohttp', 'cryptography', 'starlette', 'pydantic', 'torch', 'uvloop'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert shown.returncode == 0, shown.stderr
    for name in ("up", "worker", "doctor", "profile"):
        assert f" {name} " in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["fly"], 2, ["No such command", "forestay --help"]),
        (["up", "--port", "70000"], 2, ["--port", "65535"]),
        (["up", "--fleet", "/nowhere/fleet.yaml"], 2, ["--fleet", "/nowhere/fleet.yaml"]),
        (["up", "--server", "apache"], 2, ["--server", "granian or uvicorn"]),
        (["up", "--data-dir", "/proc/nowhere"], 2, ["--data-dir", "/proc/nowhere"]),
        (["worker"], 2, ["FORESTAY_DATABASE_URL", "is not set", "forestay up"]),
        (["gateway"], 2, ["FORESTAY_DATABASE_URL", "is not set"]),
        (["controller"], 2, ["FORESTAY_DATABASE_URL", "is not set"]),
        (["migrate"], 2, ["FORESTAY_DATABASE_URL", "is not set"]),
        (["tls", "show", "--dir", "/nowhere"], 2, ["no certificates in /nowhere", "forestay tls init"]),
        (["profile", "save", "--url", "ftp://x", "--key", "a:b"], 2, ["FORESTAY_URL", "ftp://x"]),
    ],
)
def test_an_error_is_one_line_that_names_the_thing_and_the_mend(
    arguments: list[str], status: int, words: list[str]
) -> None:
    """What failed, which thing, how to mend it; never a traceback."""
    ended = run_cli(*arguments)
    assert ended.returncode == status, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    for word in words:
        assert word in ended.stderr


def test_a_missing_store_is_named_even_when_others_are_given() -> None:
    """The first missing variable is told, with its form."""
    ended = run_cli("worker", environment={"FORESTAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert ended.returncode == 2
    assert "FORESTAY_OBJECT_STORE: is not set; expected file:///folder" in ended.stderr


def test_with_json_an_error_is_also_one_json_object() -> None:
    """A program reads the error from standard output."""
    ended = run_cli("profile", "show", "--json", environment={"FORESTAY_PROFILE": "/nowhere/profile.json"})
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["kind"] == "UsageError"


def test_a_wrong_setting_is_named_with_what_was_expected() -> None:
    """A variable that does not parse stops the command with its name."""
    ended = run_cli("doctor", environment={"FORESTAY_PORT": "eighty"})
    assert ended.returncode == 2
    assert "FORESTAY_PORT: 'eighty' is not a value of type int" in ended.stderr


def test_debug_shows_where_it_failed() -> None:
    """FORESTAY_DEBUG=1 adds the traceback."""
    ended = run_cli("profile", "show", environment={"FORESTAY_PROFILE": "/nowhere/p", "FORESTAY_DEBUG": "1"})
    assert "Traceback" in ended.stderr


def test_a_profile_is_kept_for_its_owner_alone_and_read_back(tmp_path: pathlib.Path) -> None:
    """Saved once, used by every command; the secret is never shown."""
    where = {"FORESTAY_PROFILE": str(tmp_path / "deep" / "profile.json"), "FORESTAY_KEY": "abc:secret"}
    saved = run_cli("profile", "save", "--url", "http://127.0.0.1:9", environment=where)
    assert saved.returncode == 0, saved.stderr
    shown = run_cli("profile", "show", "--json", environment={"FORESTAY_PROFILE": where["FORESTAY_PROFILE"]})
    assert json.loads(shown.stdout)["key_id"] == "abc"
    assert "secret" not in shown.stdout
    assert (tmp_path / "deep" / "profile.json").stat().st_mode & 0o777 == 0o600


def test_a_damaged_profile_is_a_clear_error(tmp_path: pathlib.Path) -> None:
    """The file is named, and how to make a new one."""
    (tmp_path / "profile.json").write_text("{")
    with pytest.raises(UsageError, match="is not a profile"):
        load_profile(tmp_path / "profile.json")
    save_profile(tmp_path / "profile.json", Profile("http://127.0.0.1:9", "a:b"))
    assert load_profile(tmp_path / "profile.json") == Profile("http://127.0.0.1:9", "a:b")


class Answers(http.server.BaseHTTPRequestHandler):
    """A platform that answers as its path says."""

    def do_GET(self) -> None:
        """Answer with the status in the path."""
        status = int(self.path.rsplit("/", 1)[1])
        detail = {200: {"fine": True}, 422: {"detail": [{"loc": ["body", "name"], "msg": "is too long"}]}}
        unknown = {"detail": "model forestay/none is unknown"}
        body = b"<html>" if status == 203 else json.dumps(detail.get(status, unknown)).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def client() -> Iterator[PlatformClient]:
    """A client of a platform that answers as told."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield PlatformClient(Profile(f"http://127.0.0.1:{server.server_port}", "a:b"), timeout_seconds=5)
        server.shutdown()
        thread.join()


def test_the_client_returns_the_parsed_answer(client: PlatformClient) -> None:
    """A good answer is its JSON."""
    assert client.get("/200") == {"fine": True}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "run `forestay login`, or set FORESTAY_KEY"),
        (403, "HTTP 403 from GET /403"),
        (404, "model forestay/none is unknown"),
        (422, "body.name: is too long"),
    ],
)
def test_the_client_says_what_an_error_status_means(client: PlatformClient, status: int, words: str) -> None:
    """The status and the platform's own words, in one sentence."""
    with pytest.raises(Rejected, match=words) as raised:
        client.get(f"/{status}")
    assert raised.value.status == status


def test_something_that_is_no_platform_is_recognised(client: PlatformClient) -> None:
    """A page of HTML is not taken for an answer."""
    with pytest.raises(Unavailable, match="is FORESTAY_URL right"):
        client.get("/203")


@pytest.mark.threat("API8:2023")
@pytest.mark.parametrize(
    ("url", "key", "words", "never"),
    [
        ("http://olga:hunter2@127.0.0.1:1", "a:b", "holds a name or password", "hunter2"),
        ("http://127.0.0.1:99999", "a:b", "is not a URL", "a:b"),
        ("http://[::1", "a:b", "is not a URL", "a:b"),
        ("http://127.0.0.1:1/a b", "a:b", "is not a URL", "a:b"),
        ("http://127.0.0.1:1", "a:hunter2\n", "holds characters that no key has", "hunter2"),
        ("http://127.0.0.1:1", "a:hunt\xe9r2", "holds characters that no key has", "hunt"),
    ],
)
def test_an_address_or_key_that_cannot_be_is_refused_without_telling_a_secret(
    url: str, key: str, words: str, never: str
) -> None:
    """The variable is named; what could be a secret is not repeated."""
    with pytest.raises(UsageError, match=words) as raised:
        PlatformClient(Profile(url, key))
    assert never not in str(raised.value)


def test_whatever_a_person_types_as_a_name_arrives_as_that_name(client: PlatformClient) -> None:
    """Blanks, letters of other scripts and control characters are quoted; the platform answers, not the client."""
    for name in ("a b", "m\xf6dell", "a\nb", "\udcff", "\x1b[31m", "#1"):
        assert client.get(f"/admin/models/{name}/200") == {"fine": True}


def test_a_platform_that_does_not_run_is_said_with_the_mend() -> None:
    """Connection refused becomes a sentence."""
    nobody = PlatformClient(Profile("http://127.0.0.1:1", "a:b"), timeout_seconds=2)
    with pytest.raises(Unavailable, match=r"no platform answers at http://127\.0\.0\.1:1 .*forestay up"):
        nobody.get("/admin/fleet")
