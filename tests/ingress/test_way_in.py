"""The whole way in: what honest callers name reaches the model clean, and what tricks name reaches nobody."""

import base64
import pathlib
import ssl

import pytest
from tests.ingress import good
from tests.ingress.ssrf import corpus
from tests.ingress.way_in import WayIn, fault_of
from tests.ingress.web import filled, filled_page, listening_canary, page, scripted_web, tls_contexts

from forestay.media.decode import Decoder
from forestay.media.fetch import FetchLimits
from forestay.queue.model import Answer

GENEROUS = FetchLimits(max_bytes=8 * 1024 * 1024, total_seconds=20.0)
SOME = (
    97  # every so many-th trick; all of them go through the fetcher alone in test_ssrf and through all of it in bench
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side and a client's side of TLS, with an authority of their own."""
    folder = tmp_path_factory.mktemp("tls")
    return tls_contexts(folder)


async def test_every_honest_address_leads_to_its_file(
    decoder: Decoder, folder: pathlib.Path, certificates: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Names, addresses, ports, redirects, encodings and answers as the web has them."""
    failures: dict[str, str] = {}
    server, client = certificates
    way_in = WayIn(decoder, folder, client, GENEROUS)
    with listening_canary() as canary:
        for way in good.ways():
            async with scripted_web(canary, server) as web:
                web.pages = {path: filled_page(wanted, web) for path, wanted in way.pages.items()}
                made = await way_in.prepare(filled(way.url, web), web, way.answers)
            if fault := fault_of(made, "image/png"):
                failures[way.name] = fault
        assert (failures, canary.packets()) == ({}, 0)


async def test_a_trick_ends_as_the_callers_error_and_the_canary_hears_nothing(
    decoder: Decoder, folder: pathlib.Path
) -> None:
    """The answer is a 422 in fal's words that names the field; nothing of the inside stands in it."""
    way_in = WayIn(decoder, folder)
    with listening_canary() as canary:
        for case in corpus()[::SOME]:
            async with scripted_web(canary) as web:
                web.pages = {path: filled_page(wanted, web) for path, wanted in case.pages.items()}
                made = await way_in.prepare(filled(case.url, web), web, case.answers)
            # What is no URL at all is the model's own business: it has no network to use it with.
            assert isinstance(made, Answer) or ":" not in case.url, case.name
        assert canary.packets() == 0


async def test_a_large_file_goes_through_without_being_held(decoder: Decoder, folder: pathlib.Path) -> None:
    """A body over the cap is cut off while it comes, and is the caller's error."""
    way_in = WayIn(decoder, folder)
    with listening_canary() as canary:
        async with scripted_web(canary) as web:
            web.pages = {"/a": next(case for case in corpus() if case.name == "answer: an endless body").pages["/a"]}
            made = await way_in.prepare("http://ok.example/a", web, {})
    assert isinstance(made, Answer)
    assert made.error_type == "file_too_large"


@pytest.mark.parametrize("kind", ["image", "weights"])
async def test_a_film_is_neither_a_picture_nor_weights(decoder: Decoder, folder: pathlib.Path, kind: str) -> None:
    """The real opener and the real check of weights refuse it, each in its words."""
    film = page("200 OK", body=next(file for file in good.files() if file.name == "MP4 MPEG-4").build())
    with listening_canary() as canary:
        async with scripted_web(canary) as web:
            web.pages = {"/a": film}
            made = await WayIn(decoder, folder, limits=GENEROUS).prepare("http://ok.example/a", web, {}, kind)
    assert isinstance(made, Answer)
    assert made.error_type == {"image": "unsupported_image_format", "weights": "file_download_error"}[kind]


async def test_safetensors_come_through_as_weights(decoder: Decoder, folder: pathlib.Path) -> None:
    """Byte for byte, as unnamed bytes."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    weights = len(header).to_bytes(8, "little") + header + bytes(8)
    with listening_canary() as canary:
        async with scripted_web(canary) as web:
            web.pages = {"/a": page("200 OK", body=weights)}
            made = await WayIn(decoder, folder, limits=GENEROUS).prepare("http://ok.example/a", web, {}, "weights")
    assert isinstance(made, bytes)
    assert base64.b64encode(weights) in made
