"""schemathesis against our own description: what it says is what the server does, whatever it is sent."""

import functools
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from tests.acceptance.conftest import Acceptance

EXAMPLES = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
PHASES = [Phase.explicit, Phase.generate]


@functools.cache
def described(url: str) -> Any:
    """Load the description that the platform serves."""
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_described_operation_holds_whatever_is_sent(acceptance: Acceptance) -> None:
    """Valid and invalid calls of each operation: no 5xx, only described statuses and content types."""
    for result in described(acceptance.url).get_all_operations():
        operation = result.ok()
        if operation.path.startswith("/admin") and operation.method.upper() != "GET":
            continue  # these change the fleet that the other tests use; their bad inputs have tests of their own
        attack(operation, acceptance)


def attack(operation: Any, acceptance: Acceptance) -> None:
    """Send generated calls of one operation and check each answer."""
    key = acceptance.admin_key if operation.path.startswith("/admin") else acceptance.api_key
    headers = {"Authorization": f"Key {key}"}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=PHASES,
        database=None,
        suppress_health_check=(HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(base_url=acceptance.url, headers=headers, checks=CHECKS, timeout=30)

    check()
