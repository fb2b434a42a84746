"""The platform's own answers are in fal's shape for request errors."""

import msgspec
import pytest

from forestay.queue import answers
from forestay.queue.model import Answer, ErrorType
from forestay.queue.retry import GiveUp

OURS = [
    answers.cancelled(),
    answers.expired_before_start(),
    answers.expired_in_total(),
    answers.quarantined(2),
    answers.after_giving_up(GiveUp("no luck", error_type=ErrorType.RUNNER_DISCONNECTED), 0),
    *(answers.request_error(error_type, "why") for error_type in ErrorType),
]


@pytest.mark.parametrize("answer", OURS)
def test_body_header_and_record_name_the_same_type(answer: Answer) -> None:
    """A client finds the type in the body and in X-Fal-Error-Type; status and webhook read it from the record."""
    body = msgspec.json.decode(answer.body)
    assert set(body) - {"message"} == {"detail", "error_type"}
    assert body["error_type"] == answer.headers["x-fal-error-type"] == answer.error_type
    assert body["detail"] == answer.error
    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code >= 400


@pytest.mark.parametrize("answer", OURS)
def test_an_answer_whose_status_has_no_phrase_says_its_text_where_the_javascript_client_looks(answer: Answer) -> None:
    """Its error shows `message`, else HTTP's phrase; 499 has none, and a server then writes a placeholder."""
    body = msgspec.json.decode(answer.body)
    assert body.get("message") == (answer.error if answer.status_code == 499 else None)


def test_poison_says_quarantined_and_bad_luck_does_not() -> None:
    """An operator can tell a suspicious input from lost workers by the text."""
    assert b"quarantined" in answers.after_giving_up(GiveUp("x", poison=True), 2).body
    assert b"quarantined" not in answers.after_giving_up(GiveUp("x"), 2).body
