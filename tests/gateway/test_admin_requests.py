"""What an operator is told of a request whose answer the queue does not have."""

import uuid

import pytest

from forestay.gateway.admin_requests import why_no_answer
from forestay.ids import RequestId

ID = RequestId(uuid.UUID("01980f5e-7c1a-7000-8000-0123456789ab"))


@pytest.mark.parametrize("lane", ["direct", "stream", "realtime"])
def test_the_answer_of_a_synchronous_call_is_said_to_be_given_once(lane: str) -> None:
    """Nothing was lost: it went to its caller; the fact is all that there is to show."""
    said = why_no_answer(ID, {"lane": lane})
    assert "synchronous call" in said
    assert f"`forestay request show {ID}`" in said


def test_an_answer_whose_time_is_over_is_told_from_a_request_that_never_was() -> None:
    """The fact outlives the answer."""
    assert "no longer kept" in why_no_answer(ID, {"lane": "queue"})
    assert why_no_answer(ID, None).startswith(f"no request {ID}")
