"""The whole way of a caller's file, as a worker has it: body, guarded fetch, limited child, body for the model."""

import base64
import dataclasses
import json
import pathlib
import ssl
from collections.abc import Mapping, Sequence
from typing import cast

from tests.ingress.good import MARK
from tests.ingress.playing import LIMITS
from tests.ingress.web import ScriptedWeb
from tests.worker.harness import MemoryMedia

from forestay.artefacts.caller_weights import check_weights
from forestay.clock import SystemClock
from forestay.fleet.spec import EndpointSpec
from forestay.media.decode import Decoder
from forestay.media.fetch import Fetcher, FetchLimits
from forestay.queue.model import Answer
from forestay.settings import Ingress
from forestay.telemetry.metrics import Metrics
from forestay.worker.inputs import InputPorts, Inputs


@dataclasses.dataclass(frozen=True, slots=True)
class WayIn:
    """What stays the same from file to file."""

    decoder: Decoder
    folder: pathlib.Path
    tls: ssl.SSLContext | None = None
    limits: FetchLimits = LIMITS

    async def prepare(
        self, url: str, web: ScriptedWeb, answers: Mapping[str, Sequence[Sequence[str]]], kind: str = "any"
    ) -> bytes | Answer:
        """Prepare a body that names one file."""
        ports = InputPorts(
            media=MemoryMedia(SystemClock()),
            fetcher=Fetcher(limits=self.limits, network=web.network(answers, self.tls)),
            opener=self.decoder,
            check_weights=check_weights,
            folder=self.folder,
            settings=Ingress(max_bytes=8 * 1024 * 1024),
            clock=SystemClock(),
            metrics=Metrics(),
        )
        endpoint = EndpointSpec("/", media_inputs=("file",), media_kinds={} if kind == "any" else {"file": kind})
        return await Inputs(ports).prepare(json.dumps({"file": url}).encode(), endpoint)


def fault_of(made: bytes | Answer, content_type: str) -> str | None:
    """Return what is wrong with a body that should hold a clean file."""
    if isinstance(made, Answer):
        return str(made.error)
    text = cast("str", json.loads(made)["file"])
    head, _, data = text.partition(",")
    if head != f"data:{content_type};base64":
        return f"holds {head}"
    return "keeps the marks of its maker" if MARK in base64.b64decode(data) else None
