"""Files in inputs: where bytes come from, what the model gets, and what a caller reads when they cannot be had."""

import base64
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.harness import TENANT, MemoryMedia

from forestay.clock import SystemClock
from forestay.errors import ForestayError, Unavailable, UsageError
from forestay.fleet.spec import EndpointSpec
from forestay.media.decode import Clean, Fault, MediaRefused
from forestay.media.fetch import TooManyBytes
from forestay.media.limits import Kind
from forestay.queue.model import Answer
from forestay.settings import Ingress
from forestay.telemetry.metrics import Metrics
from forestay.worker.inputs import InputPorts, Inputs

PNG = b"\x89PNG\r\n\x1a\n"
Pages = dict[str, bytes | ForestayError]


class Web:
    """A fetcher that knows some URLs."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def fetch_into(self, url: str, write: Callable[[bytes], object], max_bytes: int | None = None) -> int:
        """Answer from the list."""
        page = self.pages[url]
        if isinstance(page, ForestayError):
            raise page
        if max_bytes is not None and len(page) > max_bytes:
            raise TooManyBytes(url, max_bytes)
        write(page)
        return len(page)


class Copier:
    """Opens every file by copying it, except those that it was told to refuse."""

    def __init__(self) -> None:
        self.kinds: list[Kind | None] = []
        self.refused: dict[bytes, MediaRefused] = {}

    async def clean(self, source: IO[bytes], out: IO[bytes], kind: Kind | None) -> Clean:
        """Copy."""
        self.kinds.append(kind)
        source.seek(0)
        data = source.read()
        if data in self.refused:
            raise self.refused[data]
        out.write(data)
        out.flush()
        return Clean(kind or "image", "image/png", len(data))


@dataclasses.dataclass
class World:
    """Inputs over a small web."""

    pages: Pages = dataclasses.field(default_factory=Pages)
    settings: Ingress = dataclasses.field(default_factory=lambda: Ingress(max_bytes=1000))
    media: MemoryMedia = dataclasses.field(default_factory=lambda: MemoryMedia(SystemClock()))
    opener: Copier = dataclasses.field(default_factory=Copier)
    weights: str | None = None  # why weights are refused

    async def prepare(self, body: object, *fields: str, **kinds: str) -> bytes | Answer:
        """Prepare one body; fields of a kind are given by name."""
        ports = InputPorts(
            media=self.media,
            fetcher=Web(self.pages),
            opener=self.opener,
            check_weights=lambda _: self.weights,
            folder=pathlib.Path(tempfile.gettempdir()),
            settings=self.settings,
            clock=SystemClock(),
            metrics=Metrics(),
        )
        endpoint = EndpointSpec("/", media_inputs=(*fields, *kinds), media_kinds=kinds)
        return await Inputs(ports).prepare(body if isinstance(body, bytes) else json.dumps(body).encode(), endpoint)


def filled(made: bytes | Answer) -> dict[str, object]:
    """Return the body that the model gets."""
    assert isinstance(made, bytes)
    return cast("dict[str, object]", json.loads(made))


def refusal(made: bytes | Answer, kind: str = "file_download_error") -> dict[str, object]:
    """Return the one detail of a refusal."""
    assert isinstance(made, Answer)
    detail = cast("dict[str, object]", json.loads(made.body)["detail"][0])
    assert (made.status_code, made.error_type, detail["type"]) == (422, kind, kind)
    assert detail["url"] == f"https://docs.fal.ai/errors#{kind}"
    return detail


def uri(data: bytes, kind: str = "image/png") -> str:
    """Return a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


async def test_texts_lists_and_objects_are_filled_and_the_rest_left_alone() -> None:
    """All the shapes in which fal's models take media."""
    world = World({f"https://x/{name}": PNG + name.encode() for name in "abc"})
    body = {"image": "https://x/a", "images": ["https://x/b", {"url": "https://x/c"}], "other": "https://x/d", "n": 1}
    made = filled(await world.prepare(body, "image", "images", "absent"))
    assert made == {
        "image": uri(PNG + b"a"),
        "images": [uri(PNG + b"b"), {"url": uri(PNG + b"c")}],
        "other": "https://x/d",
        "n": 1,
    }


async def test_a_data_uri_goes_the_same_way_as_a_url() -> None:
    """What the caller sent inline reaches the model only as the opener's clean copy, whatever type it claims."""
    world = World()
    made = filled(await world.prepare({"image": uri(PNG + b"mine", "text/html")}, "image"))
    assert made == {"image": uri(PNG + b"mine")}
    assert world.opener.kinds == [None]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("data:,hello%20there", b"hello there"),
        ("data:text/plain,a+b", b"a+b"),
        ("DATA:image/png;base64,aGk=", b"hi"),
        ("data:image/png;base64,aGk", b"hi"),
        ("data:;base64,a%47k%3D", b"hi"),
        ("data:image/png;charset=x;base64, aG k=", b"hi"),
    ],
)
async def test_data_uris_are_read_as_browsers_read_them(text: str, data: bytes) -> None:
    """Percent signs, missing padding, spaces, capitals."""
    assert filled(await World().prepare({"image": text}, "image")) == {"image": uri(data)}


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,%%%", "data:image/png", "data:;base64,a", "data:;base64,\u00e9"]
)
async def test_a_broken_data_uri_is_the_callers_error(text: str) -> None:
    """It names the field and says what is wrong."""
    detail = refusal(await World().prepare({"image": text}, "image"))
    assert detail["loc"] == ["body", "image"]
    assert "data: URI" in str(detail["msg"])


async def test_the_how_to_reads_what_a_model_gets() -> None:
    """The block of the page, run on a body that was prepared."""
    page = (pathlib.Path(__file__).parents[2] / "docs/howto/take-files-as-inputs.md").read_text(encoding="utf-8")
    block = page.partition("```python")[2].partition("\n")[2].partition("```")[0]
    names: dict[str, Callable[[str], bytes]] = {}
    exec(block, names)  # noqa: S102 - a page of ours, which must hold what it says
    made = filled(await World({"https://x/a": PNG}).prepare({"image": "https://x/a"}, "image"))
    assert names["read"](str(made["image"])) == PNG


async def test_nothing_to_fetch_leaves_the_bytes_untouched() -> None:
    """Spacing and NaN stay as they came; a name that is no URL is the model's own business."""
    for body in (b'{ "image" : "sketch", "x": NaN }', b"no json", b"[1]", b"", b'{"image": 5}', b'{"image": null}'):
        assert await World().prepare(body, "image") == body


async def test_a_field_that_stands_there_twice_is_read_in_one_way_only() -> None:
    """The model must not read the URL that the platform did not see."""
    made = await World().prepare(b'{"image": "https://x/a", "image": "sketch"}', "image")
    assert made == b'{"image": "sketch"}'


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://x/a",
        "s3://bucket/a",
        "/etc/passwd",
        "//x/a",
        "~/.ssh/id_ed25519",
        "\\\\x\\share",
        "C:\\secrets",
        " \tfile:///etc/passwd",
        "javascript:alert(1)",
    ],
)
async def test_a_name_that_means_something_on_our_machines_is_refused(text: str) -> None:
    """A model's code might open a path, or follow another scheme, if the platform let it through."""
    detail = refusal(await World().prepare({"image": text}, "image"))
    assert (detail["loc"], "http" in str(detail["msg"])) == (["body", "image"], True)


async def test_each_field_is_opened_as_its_declared_kind() -> None:
    """Image, video and audio narrow what may come; a bare name takes any."""
    world = World({"https://x/a": PNG})
    await world.prepare(dict.fromkeys("abcd", "https://x/a"), "a", b="image", c="video", d="audio")
    assert sorted(map(str, world.opener.kinds)) == ["None", "audio", "image", "video"]


async def test_a_field_of_kind_file_is_handed_over_unopened() -> None:
    """For formats that the platform does not open; it is called bytes, whatever it is."""
    world = World({"https://x/a": b"solid mesh"})
    made = filled(await world.prepare({"mesh": {"url": "https://x/a"}}, mesh="file"))
    assert made == {"mesh": {"url": uri(b"solid mesh", "application/octet-stream")}}
    assert world.opener.kinds == []


async def test_weights_are_checked_and_never_opened_as_media() -> None:
    """Names of built-in styles pass; URLs in `path` are fetched, as fal's LoRAs have them; what is refused says why."""
    pages: Pages = {"https://x/lora": b"weights"}
    body = {"loras": [{"path": "https://x/lora", "scale": 0.5}, {"path": "sketch"}]}
    world = World(pages)
    made = filled(await world.prepare(body, loras="weights"))
    inline = uri(b"weights", "application/octet-stream")
    assert made == {"loras": [{"path": inline, "scale": 0.5}, {"path": "sketch"}]}
    assert world.opener.kinds == []
    detail = refusal(await World(pages, weights="weights must be safetensors").prepare(body, loras="weights"))
    assert detail["loc"] == ["body", "loras", 0, "path"]
    assert "must be safetensors" in str(detail["msg"])


async def test_our_own_media_come_from_the_store_and_quarantined_ones_do_not() -> None:
    """Only what has been released may be used as an input."""
    world = World()
    for state in ("released", "quarantine"):
        item = await world.media.save(
            PNG + b"ours",
            tenant_id=TENANT,
            file_name="a.png",
            content_type="image/png",
            request_id=None,
            attempt=None,
            lifetime_seconds=None,
            state=state,
        )
        made = await world.prepare({"image": item.url}, "image")
        if state == "released":
            assert filled(made) == {"image": uri(PNG + b"ours")}
        else:
            assert refusal(made)["loc"] == ["body", "image"]


async def test_a_failed_fetch_names_its_place_and_reason() -> None:
    """The field, down to the item of a list."""
    world = World(
        {
            "https://x/a": PNG,
            "https://x/b": UsageError("url", "https://x answered 404"),
            "https://x/c": Unavailable("https://x does not answer"),
        }
    )
    detail = refusal(await world.prepare({"images": ["https://x/a", "https://x/b"]}, "images"))
    assert (detail["loc"], detail["input"]) == (["body", "images", 1], "https://x/b")
    assert "answered 404" in str(detail["msg"])
    detail = refusal(await world.prepare({"images": [{"url": "https://x/c"}]}, "images"))
    assert detail["loc"] == ["body", "images", 0, "url"]


@pytest.mark.parametrize(
    ("fault", "limit", "kind", "word"),
    [
        ("unsupported", "", "image", "unsupported_image_format"),
        ("unsupported", "", "video", "unsupported_video_format"),
        ("unsupported", "", "audio", "unsupported_audio_format"),
        ("broken", "", "image", "image_load_error"),
        ("broken", "", "audio", "unsupported_audio_format"),
        ("too_large", "max_pixels", "image", "image_too_large"),
        ("too_heavy", "max_frames", "image", "image_too_large"),
        ("too_heavy", "memory_bytes", "image", "file_too_large"),
        ("too_heavy", "wall_seconds", "video", "file_too_large"),
        ("too_long", "max_seconds", "video", "video_duration_too_long"),
        ("too_long", "max_seconds", "audio", "audio_duration_too_long"),
        ("too_long", "max_seconds", "any", "video_duration_too_long"),
    ],
)
async def test_a_file_that_is_not_opened_is_answered_in_fals_words(
    fault: Fault, limit: str, kind: str, word: str
) -> None:
    """A caller written for fal reads the same types here."""
    world = World({"https://x/a": PNG})
    world.opener.refused[PNG] = MediaRefused(fault, "because of this", limit, allowed=5, given=9)
    plain, kinds = (("f",), {}) if kind == "any" else ((), {"f": kind})
    detail = refusal(await world.prepare({"f": "https://x/a"}, *plain, **kinds), word)
    assert "because of this" in str(detail["msg"])


async def test_many_or_large_files_are_refused() -> None:
    """Caps on number and sum, for files that come by URL and inline."""
    world = World({"https://x/a": b"x" * 600})
    two = refusal(await world.prepare({"images": ["https://x/a", "https://x/a"]}, "images"), "file_too_large")
    assert "together" in str(two["msg"])
    inline = refusal(await world.prepare({"image": uri(b"x" * 3_000)}, "image"), "file_too_large")
    assert len(str(inline["input"])) <= 64
    many = await world.prepare({"images": ["https://x/a"] * 40}, "images")
    assert "more than 32 files" in str(refusal(many)["msg"])


async def test_a_url_in_an_undeclared_field_is_refused_where_the_operator_asks_for_it() -> None:
    """By default a prompt may speak of a URL, and so may a field that the spec does not know."""
    body = {"prompt": "draw https://x/a", "extra": {"deep": ["HTTPS://x/b"]}}
    assert isinstance(await World().prepare(body, "image"), bytes)
    strict = World(settings=Ingress(refuse_undeclared_urls=True))
    assert refusal(await strict.prepare(body, "image"), "value_error")["loc"] == ["body", "extra", "deep", 0]
    assert isinstance(await strict.prepare({"prompt": "draw https://x/a"}), bytes)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
async def test_any_json_is_survived(value: object) -> None:
    """Whatever a caller puts into a media field, nothing raises."""
    made = await World(settings=Ingress(refuse_undeclared_urls=True)).prepare({"image": value, "other": value}, "image")
    assert isinstance(made, bytes | Answer)
