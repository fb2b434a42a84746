"""Probes inside pipelines: a model process that says what its pipelines did, and a worker that acts on it."""

import dataclasses
import json
import pathlib
from typing import cast

import aiohttp
import pytest
from tests.worker.harness import running_worker, spec_of, until
from tests.worker.test_fal_app import hosted
from tests.worker.test_output_quality import ENFORCED

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.spec import LimitSpec, ResourceSpec
from forestay.ids import new_request_id
from forestay.quality.pipeline_parts import parts_of
from forestay.quality.probes import PROBE_HEADER, read_report
from forestay.queue.model import State
from forestay.worker.hosts.fal_app import FalAppHost
from forestay.worker.hosts.host import Answered, CallRequest

ROOT = pathlib.Path(__file__).parents[2]

# A stand-in for the class that pipelines derive from: it is enough to be called and to hold adapters.
APP = """
import sys, types
import fal
from pydantic import BaseModel

class DiffusionPipeline:
    def __init__(self): pass

module = types.ModuleType("diffusers.pipelines.pipeline_utils")
module.DiffusionPipeline = DiffusionPipeline
sys.modules["diffusers.pipelines.pipeline_utils"] = module

class Layer:
    scaling, active_adapters, merged_adapters, disable_adapters = {"ink": 0.8}, ["ink"], [], False

class Unet:
    def __init__(self): self.peft_config = {}
    def modules(self): return [Layer()]

class Pipe(DiffusionPipeline):
    def __init__(self):
        self.unet = Unet()
    def __call__(self, prompt, num_inference_steps=2):
        return "drawn"

class In(BaseModel):
    prompt: str = "x"
    lora: str = ""

class Out(BaseModel):
    text: str

class Probed(fal.App, name="probed"):
    machine_type = "XS"
    def setup(self):
        self.pipe = Pipe()
    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        if input.lora:
            self.pipe.unet.peft_config = {"ink": 1}  # and nobody takes it out again
        return Out(text=self.pipe(input.prompt))
"""


ONE_LINE = APP.replace("class Pipe(DiffusionPipeline)", "class Pipe").replace(
    "self.pipe = Pipe()", "from forestay_probe import forestay_probe; self.pipe = forestay_probe(Pipe())"
)


@pytest.mark.parametrize("app", [APP, ONE_LINE], ids=["diffusers", "by one line"])
async def test_an_adapter_left_in_a_pipeline_is_found_and_no_caller_sees_the_report(app: str) -> None:
    """Nothing is found before; the request that leaves it names the replica; the header stays in the worker."""
    async with running_worker() as harness:
        spec = dataclasses.replace(spec_of(app="app.py::Probed", policy="unguarded"), quality=ENFORCED)
        revision = await harness.deploy(spec, {"app.py": app})
        replica_id = (await harness.ready(revision))[0].replica_id
        assert (await harness.run({"prompt": "x"})).snapshot.state is State.SUCCEEDED
        assert harness.findings.kept == {}
        stored = await harness.run({"prompt": "x", "lora": "ink"})
        assert PROBE_HEADER not in stored.answer.headers

        async def found() -> bool:
            return bool(harness.findings.kept)

        await until(found, "the finding is kept")
        [kept] = harness.findings.kept.values()
        where = kept.finding.where
        assert (kept.finding.catalogue, where.replica_id, where.parameter) == (23, replica_id, "adapter=ink")
        path = f"/direct/{replica_id}/"
        proof = harness.proof("POST", path)
        async with (
            aiohttp.ClientSession() as session,
            session.post(harness.address + path, json={"prompt": "x"}, headers=proof) as got,
        ):
            assert got.status == 200
            assert PROBE_HEADER not in got.headers


DIGITS = """
from digits import *
from digits import Digits as Whole

class Ill(Whole, name="ill"):
    def setup(self):
        super().setup()
        self.text_pipeline.vae.decoder.conv_in.weight.data[0, 0, 0, 0] = float("nan")
"""


async def ask(host: FalAppHost, *, canary: bool = False, **body: object) -> Answered:
    """Call the app; as a canary does, weights are read again and a scheduler's settings told."""
    request_id = new_request_id(SystemClock().now(), 0, SystemChance())
    headers = {"x-fal-request-id": str(request_id), "content-type": "application/json"}
    headers |= {PROBE_HEADER: "weights"} if canary else {}
    body = {"prompt": "a red seven", "seed": 1, "num_inference_steps": 3, "sync_mode": True, **body}
    result = await host.call(CallRequest(request_id, 1, "/", headers, json.dumps(body).encode(), 30))
    assert isinstance(result, Answered), result
    return result


@pytest.mark.slow  # a real pipeline is loaded in a process of its own
async def test_a_real_pipeline_names_the_stage_that_made_no_numbers() -> None:
    """The answer is 200 with a black picture; the report says steps, tokens, scheduler, and that the decoder did it."""
    examples = ROOT / "examples" / "digits"
    spec = spec_of(
        app="app.py::Ill",
        limits=LimitSpec(startup_timeout_seconds=90),
        env={"DIGITS_WEIGHTS_DIR": str(examples / "weights")},
    )
    spec = dataclasses.replace(spec, resources=ResourceSpec("cpu", 1, 1_500))
    async with hosted(spec, app=DIGITS, files={"digits.py": (examples / "app.py").read_text()}) as (host, _, _, _):
        result = await ask(host)
        report = read_report(result.headers[PROBE_HEADER])
        assert report is not None
        [call] = report.calls
        assert call.not_finite is not None
        assert (call.not_finite.stage, call.steps, call.tokens, call.scheduler) == ("vae", 3, (5, 0), "DDIMScheduler")
        assert report.fingerprint
        assert "torch" in report.environment
        parts = cast("dict[str, dict[str, object]]", report.prints[0]["parts"])
        assert parts["unet"]["weights"]
        assert report.settings == {}
        of_canary = read_report((await ask(host, canary=True)).headers[PROBE_HEADER])
        assert of_canary is not None
        assert of_canary.fingerprint == report.fingerprint
        told = parts_of(of_canary)
        assert set(told) >= {"scheduler", "unet", "vae", "text_encoder"}
        assert (told["scheduler"]["setting.beta_end"], told["scheduler"]["class"]) == ("0.012", "DDIMScheduler")
        with_style = read_report((await ask(host, loras=[{"path": "thick-strokes"}])).headers[PROBE_HEADER])
        assert with_style is not None
        assert with_style.calls[0].adapters == {"thick-strokes": 1.0}
        assert with_style.left == {}
        assert with_style.fingerprint == report.fingerprint
