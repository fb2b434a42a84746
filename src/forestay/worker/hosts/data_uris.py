"""Lets an app's own loaders read the `data:` URIs that it gets in place of the URLs that callers gave.

fal's toolkit and urllib read them; `requests`, and `load_image` and `load_video` of diffusers, do not, so that an app
that fetches its input by them would fail here and nowhere else. They are taught when the app imports them. It decides
nothing else, fetches nothing, and needs the standard library alone: `shim` loads this one file beside itself.
"""

from __future__ import annotations

import base64
import binascii
import functools
import importlib
import importlib.abc
import importlib.util
import io
import mimetypes
import os
import re
import sys
import tempfile
import typing
import urllib.parse

_LONG = re.compile(r"(data:[\w.+/;=-]{0,200}?;base64,)[A-Za-z0-9+/=]{200,}")

Module = typing.Any


def shortened(text: str) -> str:
    """Return a line of output without the bytes of files in it: loaders print the URLs that they fetch."""
    return _LONG.sub(r"\1...", text) if ";base64," in text else text


def is_data(value: object) -> bool:
    """Tell whether a value is a `data:` URI."""
    return isinstance(value, str) and value[:5].lower() == "data:"


def read(uri: str) -> tuple[bytes, str]:
    """Return the bytes of a `data:` URI (RFC 2397) and their media type; raises ValueError."""
    head, comma, body = uri[5:].partition(",")
    if not comma:
        raise ValueError("a data: URI has a comma before its data")
    kind, *parameters = head.split(";")
    data = urllib.parse.unquote_to_bytes(body)
    if parameters and parameters[-1].strip().lower() == "base64":
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(f"the data: URI is not base64: {error}") from None
    return data, kind or "text/plain"


def teach() -> None:
    """Teach loaders that are imported already, and the others once the app imports them."""
    for name, lesson in LESSONS.items():
        if name in sys.modules:
            lesson(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds nothing itself: what another finder finds is taught once it has been run."""

    def __init__(self) -> None:
        self._asked: set[str] = set()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> typing.Any:
        del path, target
        if fullname not in LESSONS or fullname in self._asked:
            return None
        self._asked.add(fullname)  # the search below comes past here again
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_teach(module: Module) -> None:
                run(module)
                LESSONS[fullname](module)

            spec.loader.exec_module = run_and_teach  # type: ignore[method-assign] # pyright: ignore[reportAttributeAccessIssue]
        return spec


def teach_requests(module: Module) -> None:
    """`requests.sessions`: a session answers a `data:` URI with 200 and its bytes."""
    plain = module.Session.get_adapter
    adapters, models = (importlib.import_module(f"requests.{name}") for name in ("adapters", "models"))

    class DataAdapter(adapters.BaseAdapter):
        """Answers from the URI itself."""

        def send(self, request: typing.Any, **_: object) -> typing.Any:
            try:
                data, kind = read(request.url)
            except ValueError as error:
                raise importlib.import_module("requests.exceptions").InvalidURL(str(error)) from None
            answer = models.Response()
            answer.status_code, answer.reason = 200, "OK"
            answer.url, answer.request, answer.raw = request.url, request, io.BytesIO(data)
            answer.headers.update({"content-type": kind, "content-length": str(len(data))})
            return answer

        def close(self) -> None:
            """Nothing is open."""

    @functools.wraps(plain)
    def get_adapter(self: typing.Any, url: str) -> typing.Any:
        return DataAdapter() if is_data(url) else plain(self, url)

    module.Session.get_adapter = get_adapter


def teach_diffusers(module: Module) -> None:
    """`diffusers.utils.loading_utils`: `load_image` and `load_video`, by URI or by keyword."""
    plain_image, plain_video = module.load_image, module.load_video

    @functools.wraps(plain_image)
    def load_image(image: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        if is_data(image):
            image = importlib.import_module("PIL.Image").open(io.BytesIO(read(image)[0]))
        return plain_image(image, *args, **kwargs)

    @functools.wraps(plain_video)
    def load_video(video: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        if not is_data(video):
            return plain_video(video, *args, **kwargs)
        data, kind = read(video)
        descriptor, path = tempfile.mkstemp(suffix=mimetypes.guess_extension(kind) or ".mp4")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return plain_video(path, *args, **kwargs)
        finally:
            os.unlink(path)  # noqa: PTH108 - its name is a text

    module.load_image, module.load_video = load_image, load_video


LESSONS: dict[str, typing.Callable[[Module], None]] = {
    "requests.sessions": teach_requests,
    "diffusers.utils.loading_utils": teach_diffusers,
}
