"""Media in inputs: where bytes come from, and what a caller reads when they cannot be had."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st
from tests.worker.harness import TENANT, MemoryMedia

from forestay.clock import SystemClock
from forestay.errors import ForestayError, Unavailable, UsageError
from forestay.queue.model import Answer
from forestay.worker.inputs import Inputs

PNG = b"\x89PNG\r\n\x1a\n"


class Web:
    """A fetcher that knows some URLs."""

    def __init__(self, pages: dict[str, bytes | ForestayError]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        """Answer from the list."""
        self.asked.append(url)
        page = self.pages[url]
        if isinstance(page, ForestayError):
            raise page
        return page


def inputs(pages: dict[str, bytes | ForestayError] | None = None, max_bytes: int = 1000) -> Inputs:
    """Return inputs over a small web."""
    return Inputs(MemoryMedia(SystemClock()), Web(pages or {}), max_bytes)


def refusal(made: bytes | Answer) -> dict[str, object]:
    """Return the one detail of a refusal."""
    assert isinstance(made, Answer)
    assert (made.status_code, made.error_type) == (422, "file_download_error")
    return json.loads(made.body)["detail"][0]  # type: ignore[no-any-return]


async def test_texts_lists_and_objects_are_filled_and_the_rest_left_alone() -> None:
    """All the shapes in which fal's models take media."""
    pages: dict[str, bytes | ForestayError] = {f"https://x/{name}": PNG + name.encode() for name in "abc"}
    body = {"image": "https://x/a", "images": ["https://x/b", {"url": "https://x/c"}], "other": "https://x/d", "n": 1}
    made = await inputs(pages).prepare(json.dumps(body).encode(), ("image", "images", "absent"))
    assert isinstance(made, bytes)
    filled = json.loads(made)

    def uri(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode(PNG + name.encode()).decode()

    assert filled == {"image": uri("a"), "images": [uri("b"), {"url": uri("c")}], "other": "https://x/d", "n": 1}


async def test_nothing_to_fetch_leaves_the_bytes_untouched() -> None:
    """Spacing, NaN and data: URIs stay as they came."""
    for body in (b'{ "image" : "data:image/png;base64,AA==", "x": NaN }', b"no json", b"[1]", b"", b'{"image": 5}'):
        assert await inputs().prepare(body, ("image",)) == body


async def test_quarantined_media_of_another_attempt_is_not_given_away() -> None:
    """Only what has been released may be used as an input."""
    media = MemoryMedia(SystemClock())
    item = await media.save(
        PNG,
        tenant_id=TENANT,
        file_name="a.png",
        content_type="image/png",
        request_id=None,
        attempt=None,
        lifetime_seconds=None,
        state="quarantine",
    )
    made = await Inputs(media, Web({}), 1000).prepare(json.dumps({"image": item.url}).encode(), ("image",))
    assert refusal(made)["loc"] == ["body", "image"]


async def test_a_failed_fetch_names_its_place_and_reason() -> None:
    """The field, down to the item of a list."""
    pages: dict[str, bytes | ForestayError] = {
        "https://x/a": PNG,
        "https://x/b": UsageError("url", "https://x answered 404"),
        "https://x/c": Unavailable("https://x does not answer"),
    }
    made = await inputs(pages).prepare(b'{"images": ["https://x/a", "https://x/b"]}', ("images",))
    assert refusal(made)["loc"] == ["body", "images", 1]
    assert "answered 404" in str(refusal(made)["msg"])
    made = await inputs(pages).prepare(b'{"images": [{"url": "https://x/c"}]}', ("images",))
    assert refusal(made)["loc"] == ["body", "images", 0, "url"]


async def test_many_or_large_files_are_refused() -> None:
    """Caps on number and sum."""
    pages: dict[str, bytes | ForestayError] = {"https://x/a": b"x" * 600}
    two = await inputs(pages).prepare(b'{"images": ["https://x/a", "https://x/a"]}', ("images",))
    assert "exceed 1000 bytes" in str(refusal(two)["msg"])
    many = await inputs(pages).prepare(json.dumps({"images": ["https://x/a"] * 40}).encode(), ("images",))
    assert "more than 32 files" in str(refusal(many)["msg"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
async def test_any_json_is_survived(value: object) -> None:
    """Whatever a caller puts into a media field, nothing raises."""
    body = json.dumps({"image": value}).encode()
    assert isinstance(await inputs().prepare(body, ("image",)), bytes)
