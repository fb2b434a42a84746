"""Loaders of apps read the files that the worker gives them as `data:` URIs."""

import base64
import io
import pathlib
import subprocess
import sys
import types

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forestay.worker.hosts import data_uris
from forestay.worker.hosts.data_uris import read, shortened, teach_diffusers, teach_requests


def uri_of(data: bytes, kind: str = "image/png") -> str:
    """What the worker writes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture() -> bytes:
    """A small PNG."""
    target = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(target, "PNG")
    return target.getvalue()


@given(st.binary(max_size=300), st.sampled_from(["image/png", "audio/wav", "application/octet-stream"]))
def test_every_file_comes_back_as_it_was(data: bytes, kind: str) -> None:
    """Whatever the worker wrote into the URI."""
    assert read(uri_of(data, kind)) == (data, kind)


@pytest.mark.parametrize(
    ("uri", "found"), [("data:,a%20b", (b"a b", "text/plain")), ("DATA:text/html,x", (b"x", "text/html"))]
)
def test_the_other_forms_of_the_standard_are_read(uri: str, found: tuple[bytes, str]) -> None:
    """A caller may write them."""
    assert read(uri) == found


@pytest.mark.parametrize("uri", ["data:image/png;base64", "data:image/png;base64,***"])
def test_what_is_no_uri_is_an_error_that_says_so(uri: str) -> None:
    """No half of a file."""
    with pytest.raises(ValueError, match="data: URI"):
        read(uri)


def test_a_session_of_requests_reads_them_whole_and_as_a_stream() -> None:
    """As apps do: `.content`, and a picture opened from `.raw`; other URLs go where they went."""
    module = types.SimpleNamespace(Session=type("Session", (requests.Session,), {}))
    teach_requests(module)
    session = module.Session()
    answer = session.get(uri_of(picture()))
    answer.raise_for_status()
    assert (answer.content, answer.headers["Content-Type"]) == (picture(), "image/png")
    assert Image.open(session.get(uri_of(picture()), stream=True).raw).size == (8, 6)
    with pytest.raises(requests.exceptions.InvalidURL):
        session.get("data:image/png;base64,***")
    with pytest.raises(requests.exceptions.ConnectionError):
        session.get("http://127.0.0.1:9/")


def test_the_loaders_of_diffusers_read_them() -> None:
    """Pictures as pictures, films as files; what they read before they still read."""
    seen: list[object] = []

    def load_image(image: object, convert_method: object = None) -> object:
        seen.append(convert_method)
        return image

    def load_video(video: str) -> tuple[str, bytes]:
        return video, pathlib.Path(video).read_bytes()

    module = types.SimpleNamespace(load_image=load_image, load_video=load_video)
    teach_diffusers(module)
    assert module.load_image(uri_of(picture()), convert_method=len).size == (8, 6)
    assert module.load_image(image="a.png") == "a.png"
    assert seen == [len, None]
    path, data = module.load_video(uri_of(b"film", "video/mp4"))
    assert (path[-4:], data, pathlib.Path(path).exists()) == (".mp4", b"film", False)


def test_what_an_app_imports_later_is_taught_too() -> None:
    """Most apps import their loaders in the endpoint: in a process of its own, as the shim does it."""
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("beside", {data_uris.__file__!r})
beside = importlib.util.module_from_spec(spec)
spec.loader.exec_module(beside)
beside.teach()
assert "requests" not in sys.modules
import requests
print(requests.get({uri_of(b"hello", "text/plain")!r}, timeout=5).text)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "hello\n", ran.stderr


@pytest.mark.slow  # imports diffusers and torch
def test_the_real_loader_of_diffusers_is_taught() -> None:
    """The name that apps import from it, as published."""
    script = f"""
from forestay.worker.hosts import data_uris
data_uris.teach()
from diffusers.utils import load_image
print(load_image({uri_of(picture())!r}).size)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110, check=False)
    assert ran.stdout.strip() == "(8, 6)", ran.stderr


def test_lines_of_output_do_not_carry_files() -> None:
    """Loaders print what they fetch; a line without a URI is left as it is."""
    line = f"Downloading {uri_of(bytes(100_000))} ..."
    assert shortened(line) == "Downloading data:image/png;base64,... ..."
    assert shortened("base64, says the label;base64,x") == "base64, says the label;base64,x"
