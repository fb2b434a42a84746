"""What a caller is told of content that was blocked: fal's `content_policy_violation`, with category and field.

Never the content, never a score. Pure. Called by the gateway for inputs and by the worker for outputs.
"""

import msgspec

from forestay.queue.model import Answer
from forestay.safety.decide import Judgement
from forestay.safety.leaves import path_of
from forestay.safety.taxonomy import CODES

TYPE = "content_policy_violation"
URL = "https://docs.fal.ai/errors#content_policy_violation"
STATUS = 422


def wordless(answer: Answer) -> Answer:
    """Return a model's error without the model's words: status and type stay, for retries and statistics."""
    message = "The model failed; what it says of it is withheld by the content policy."
    body = msgspec.json.encode({"detail": message})
    return Answer(answer.status_code, {"content-type": "application/json"}, body, message, answer.error_type)


def refusal(judgement: Judgement, root: str) -> Answer:
    """Return the 422; `root` is `body` for an input and `output` for what the model made."""
    side = "input" if root == "body" else "output"
    context: dict[str, object] = {"verdict": judgement.verdict.value}
    context |= {"verdict_id": judgement.verdict_id} if judgement.verdict_id else {}
    if judgement.category is None:
        message = f"The {side} could not be judged, so it was refused."
        troubles = [check.trouble.value for check in judgement.checks if check.trouble is not None]
        context |= {"trouble": troubles[0]} if troubles else {}
    else:
        codes = CODES[judgement.category]
        message = f"The {side} was refused by the content policy: {judgement.category.value.replace('_', ' ')}."
        context["category"] = judgement.category.value
        context["codes"] = {"ailuminate": codes.ailuminate, "openai": codes.openai, "azure": codes.azure}
    where = [] if judgement.where in {"", "body"} else path_of(judgement.where)
    detail = {"loc": [root, *where], "msg": message, "type": TYPE, "url": URL, "ctx": context}
    body = msgspec.json.encode({"detail": [detail]})
    return Answer(STATUS, {"content-type": "application/json"}, body, message, TYPE)
