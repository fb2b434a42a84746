"""The guards that look into a body: the model's own schema, then what the call will cost.

Features come from the parsed input, device-seconds from what was learned. It decides one refusal: a request predicted
to take more than its model's owner allows (`capacity.max_gpu_seconds`). What is learned comes from the store by a
short poll; while the database is away the last known predictors speak. Called by the queue's submit and the direct
lane.
"""

import datetime as dt

from forestay.capacity.view import CostView, Foretold
from forestay.gateway.guards import Target
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors
from forestay.gateway.validation import Contracts

POLL_SECONDS = 5.0
_OVERLAP = dt.timedelta(seconds=30)  # a change may become visible a little after the moment that it names


class Predictions:
    """What this gateway predicts."""

    def __init__(self, ports: GatewayPorts, contracts: Contracts) -> None:
        self._ports = ports
        self._contracts = contracts
        self.view = CostView()

    async def run(self) -> None:
        """Keep the predictors fresh for ever; errors are raised to `keep_running`."""
        while True:
            await self.refresh()
            await self._ports.clock.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Read what has changed."""
        since = None if self.view.read_to is None else self.view.read_to - _OVERLAP
        self.view.update(await self._ports.costs.predictors(since))

    def of(self, target: Target, body: bytes | None) -> Foretold | Reply:
        """Check a body against the model's schema and predict from it, parsed once; None: a call without a body."""
        value: object = None
        if body is not None:
            parsed = self._contracts.of(target.revision).read(target.endpoint, body)
            if isinstance(parsed, Reply):
                return parsed
            value = parsed.value
        foretold = self.view.foretell(target.revision, target.endpoint, value)
        most = target.revision.spec.capacity.max_gpu_seconds
        if most is not None and foretold.seconds > most:
            return too_costly(foretold, most)
        return foretold


def too_costly(foretold: Foretold, most: float) -> Reply:
    """Answer 422 to a request that its model's owner finds too large, naming what to lower."""
    heavy = ", ".join(sorted(foretold.features)) or "its input"
    message = (
        f"This request is predicted to take {foretold.seconds:.4g} device-seconds; the model takes at most {most:g}. "
        f"Ask for less work ({heavy})"
    )
    context: dict[str, object] = {"predicted_seconds": round(foretold.seconds, 4), "max_gpu_seconds": most}
    return field_errors([FieldError(loc=["body"], msg=message, type="predicted_cost", ctx=context)], "predicted_cost")
