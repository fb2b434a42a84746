"""The yardstick of the `status` bench: a bare Starlette route that returns a constant of a status' size."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_URL = "http://127.0.0.1:8080/queue/forestay/digits/requests/01a2079c-1600-7000-9b01-58898b0fd08f"
_ANSWER = {
    "status": "COMPLETED",
    "request_id": "01a2079c-1600-7000-9b01-58898b0fd08f",
    "response_url": _URL,
    "status_url": f"{_URL}/status",
    "cancel_url": f"{_URL}/cancel",
    "logs": None,
    "metrics": {"inference_time": 0.128},
}


async def status(_request: Request) -> JSONResponse:
    """Answer with the constant."""
    return JSONResponse(_ANSWER)


app = Starlette(routes=[Route("/status", status), Route("/", status)])  # the second tells that it is ready
