"""The demo's receiver accepts what the platform signs and nothing else."""

import dataclasses
from pathlib import Path

import pytest

from forestay.delivery.signing import Signed, load_or_create_keys
from forestay.demo.receiver import TOLERANCE_SECONDS, Delivery, is_genuine, read_jwks

NOW = 1_790_000_000


@pytest.fixture
def delivery(tmp_path: Path) -> tuple[Delivery, dict[str, list[dict[str, str]]]]:
    """A delivery as the platform signs it, with the platform's public keys."""
    keys = load_or_create_keys(tmp_path / "key.pem")
    headers = keys.headers(Signed("request-1", "tenant-1", NOW, b'{"status": "OK"}'))
    return (
        Delivery(
            request_id=headers["X-Fal-Webhook-Request-Id"],
            user_id=headers["X-Fal-Webhook-User-Id"],
            timestamp=headers["X-Fal-Webhook-Timestamp"],
            signature=headers["X-Fal-Webhook-Signature"],
            body=b'{"status": "OK"}',
            arrived_at=float(NOW + 1),
        ),
        keys.jwks(),
    )


def test_what_the_platform_signed_is_genuine(
    delivery: tuple[Delivery, dict[str, list[dict[str, str]]]],
) -> None:
    """The published key verifies the platform's own signature."""
    arrived, jwks = delivery
    assert is_genuine(arrived, read_jwks(jwks))


@pytest.mark.parametrize(
    "change",
    [
        {"body": b'{"status": "ERROR"}'},
        {"request_id": "request-2"},
        {"user_id": "tenant-2"},
        {"timestamp": str(NOW + 1)},
        {"timestamp": "soon"},
        {"signature": "00" * 64},
        {"signature": "not hex"},
        {"arrived_at": NOW + TOLERANCE_SECONDS + 1},
    ],
)
def test_any_change_makes_it_false(
    change: dict[str, object], delivery: tuple[Delivery, dict[str, list[dict[str, str]]]]
) -> None:
    """Every signed part counts, and an old notice is not taken."""
    arrived, jwks = delivery
    assert not is_genuine(dataclasses.replace(arrived, **change), read_jwks(jwks))


def test_without_keys_nothing_is_genuine(delivery: tuple[Delivery, dict[str, list[dict[str, str]]]]) -> None:
    """An empty key set verifies nothing."""
    assert not is_genuine(delivery[0], [])
