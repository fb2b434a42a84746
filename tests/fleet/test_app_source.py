"""What is read from the source of an app, as people write apps against the published SDK."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.fleet import spec_file
from forestay.fleet.app_source import Endpoint, app_names, read_app
from forestay.fleet.spec import ModelSpec
from forestay.fleet.spec_template import Identity, render_spec

HEAD = """import fal
from fal.toolkit import Audio, File, Image, ImageField, Video
from fal.toolkit.types import ImageInput
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
"""
WHO = Identity("acme/x", "t", "c", "MIT", "e", "u", "Makes things.")


def spec_of(text: str, wanted: str = "") -> ModelSpec:
    """The spec that is made from an app, read back."""
    return spec_file.parse(rendered(text, wanted), "model.yaml")


def rendered(text: str, wanted: str = "") -> str:
    """The text of that spec."""
    return render_spec(read_app(HEAD + text, "app.py", wanted), "app.py", WHO)


def endpoints_of(text: str, wanted: str = "") -> list[Endpoint]:
    """Its endpoints."""
    return list(read_app(HEAD + text, "app.py", wanted).endpoints)


@pytest.mark.parametrize(
    ("said", "pool", "devices"),
    [
        ('machine_type = "GPU-H100"', "gpu", 1),
        ('machine_type = ["GPU-H100", "GPU-A100"]', "gpu", 1),
        ('machine_type = "GPU-A100"\n    num_gpus = 2', "gpu", 2),
        ("machine_type = MACHINE", "gpu", 1),
        ("num_gpus = 1", "gpu", 1),
        ('machine_type = "M"', "cpu", 1),
        ("", "cpu", 1),
    ],
)
def test_an_app_for_a_gpu_gets_one(said: str, pool: str, devices: int) -> None:
    """Most apps say it by their machine type alone, and a few by a constant beside them."""
    text = (
        f'MACHINE = "GPU-B200"\nclass A(fal.App):\n    {said}\n    @fal.endpoint("/")\n    def run(self) -> dict: ...\n'
    )
    resources = spec_of(text).resources
    assert (resources.pool, resources.devices) == (pool, devices)


def test_fields_that_hold_files_are_found_by_their_types_and_in_inherited_inputs() -> None:
    """Not by names that end with `_url` alone: with a field missed, the model sees a URL that it cannot reach."""
    [endpoint] = endpoints_of("""
class Weight(BaseModel):
    path: str
    scale: float = 1.0
class Picture(BaseModel):
    url: str
class Usual(BaseModel):
    image_url: str
    mask: Image | None = None
class Input(Usual):
    prompt: str
    reference: "ImageInput"
    film: Video
    song: Audio | None = None
    control: str = ImageField(description="x")
    loras: list[Weight] = []
    first_frame_url: str | None = None
    audio_url: File | None = None
    style_image: Picture
    box: Weight | None = None
    webhook_url: str = ""
class A(fal.App):
    @fal.endpoint("/")
    def run(self, input: Input) -> dict: ...
""")
    assert dict(endpoint.media) == {
        "image_url": "image",
        "mask": "image",
        "reference": "image",
        "film": "video",
        "song": "audio",
        "control": "image",
        "loras": "weights",
        "first_frame_url": "image",
        "audio_url": "audio",
        "style_image": "image",
    }


def test_an_input_that_another_file_holds_is_named_in_the_spec() -> None:
    """Nobody is left to wonder why its pictures do not arrive."""
    text = (
        "from schemas import Input\nclass A(fal.App):\n    @fal.endpoint('/')\n    def run(self, input: Input): ...\n"
    )
    assert "# Input is in another file: name its fields that hold files" in rendered(text)
    assert "another file" not in rendered(
        "class A(fal.App):\n    @fal.endpoint('/')\n    def run(self, text: str): ..."
    )


def test_an_app_that_derives_from_another_one_has_what_it_inherits() -> None:
    """Its endpoints and settings; of two that can be called, one has to be named."""
    text = """
class Base(fal.App, name="base"):
    machine_type = "GPU-A100"
    max_multiplexing = 3
class Pro(Base):
    max_multiplexing = 4
    @fal.endpoint(path="/v1.1")
    def run(self) -> dict: ...
"""
    assert app_names(HEAD + text) == ("Pro",)
    spec = spec_of(text)
    assert (spec.host.app, [item.path for item in spec.endpoints]) == ("app.py::Pro", ["/v1.1"])
    assert (spec.resources.pool, spec.limits.max_multiplexing) == ("gpu", 4)
    more = text + "class Max(Pro):\n    @fal.endpoint('/max')\n    def other(self) -> dict: ...\n"
    with pytest.raises(UsageError, match=r"several apps \(Pro, Max\).*app.py::Max"):
        read_app(HEAD + more, "app.py")
    assert [item.path for item in endpoints_of(more, "Max")] == ["/v1.1", "/max"]


def test_streams_and_sockets_are_known_by_what_they_do() -> None:
    """Few people write the type of the answer of a stream."""
    found = endpoints_of("""
class A(fal.App):
    @fal.endpoint("/stream")
    def stream(self, prompt: str):
        def events():
            yield "data: {}"
        return StreamingResponse(events(), media_type="text/event-stream")
    @fal.endpoint("/ws", is_websocket=True)
    async def talk(self, websocket): ...
    @fal.realtime("/live")
    def live(self, prompt: str) -> dict: ...
    @fal.endpoint("/")
    def run(self, prompt: str) -> dict: ...
""")
    assert {item.path: item.kind for item in found} == {
        "/stream": "stream",
        "/ws": "realtime",
        "/live": "realtime",
        "/": "call",
    }


def test_what_the_platform_calls_itself_is_no_endpoint_of_callers() -> None:
    """A health check and `/cancel` take no input: onboarding would send them requests."""
    found = endpoints_of("""
class A(fal.App):
    @fal.endpoint("/")
    def run(self, prompt: str) -> dict: ...
    @fal.endpoint("/fit", health_check=fal.HealthCheck())
    def fit(self) -> dict: ...
    @fal.endpoint("/cancel")
    def cancel(self) -> dict: ...
""")
    assert [item.path for item in found] == ["/"]


def test_settings_are_taken_over_and_what_has_no_field_is_said() -> None:
    """Requirements in steps, retries, the app's own name, files beside its folder; and a comment for the rest."""
    text = """
class Painter(fal.App, name="flux-pro", keep_alive=300):
    requirements = [["wheel"], ["pillow==12.0.0"]]
    min_concurrency = 1
    skip_retry_conditions = ["timeout"]
    retry_config = {"server_error": {"retries": 2}}
    request_start_timeout = 0
    app_files = ["assets", "../shared"]
    data_mounts = ["/data/models"]
    @fal.endpoint("/")
    def run(self) -> dict: ...
"""
    spec = spec_of(text)
    assert spec.host.requirements == ("wheel", "pillow==12.0.0")
    assert (spec.retry.skip_conditions, spec.retry.config) == (("timeout",), {"server_error": 2})
    assert spec.host.include == ("../shared",)
    assert spec.limits.request_start_timeout_seconds is None
    made = rendered(text)
    assert "# Not taken over: keep_alive, min_concurrency." in made
    assert '# data_mounts: ["/folder/of/the/worker:/data/models"]' in made
    nobody = render_spec(read_app(HEAD + text, "app.py"), "app.py", Identity())
    assert 'model: "my-team/flux-pro"' in nobody


def test_a_container_image_and_a_function_are_not_passed_over() -> None:
    """What is not run here is said with what to do instead."""
    body = "    @fal.endpoint('/')\n    def run(self) -> dict: ...\n"
    assert "container image is not built here" in rendered(f"class A(fal.App):\n    image = make()\n{body}")
    with pytest.raises(UsageError, match=r"joke is a fal\.function.*make it a method of a fal\.App"):
        read_app("import fal\n@fal.function(serve=True)\ndef joke(prompt: str) -> dict: ...\n", "app.py")


@settings(max_examples=30)  # each reads a whole spec
@given(st.text(max_size=80), st.sampled_from(["name", "machine_type", "requirements", "data_mounts", "app_files"]))
def test_whatever_an_app_calls_its_things_the_spec_is_yaml(value: str, setting: str) -> None:
    """Texts of the source do not break out of their lines."""
    held = [value] if setting in {"requirements", "data_mounts", "app_files"} else value
    text = f"class A(fal.App):\n    {setting} = {held!r}\n    @fal.endpoint('/')\n    def run(self) -> dict: ...\n"
    try:
        spec = spec_of(text)
    except spec_file.SpecError as error:
        assert all("host." in fault for fault in error.faults)  # noqa: PT017 - a requirement that is none is refused
    else:
        assert spec.host.app == "app.py::A"
