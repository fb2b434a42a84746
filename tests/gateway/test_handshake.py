"""The proof between gateway and worker: right ones hold once, everything else does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.handshake import SKEW_SECONDS, CallVerifier, new_nonce, reply_holds, sign_call, sign_reply

NOW = 1_900_000_000.0


def signed(nonce: str = "n", method: str = "POST", path: str = "/direct/r1/", now: float = NOW) -> str:
    """A gateway's proof."""
    return sign_call("key", method=method, path=path, now_seconds=now, nonce=nonce)


def check(value: str | None, verifier: CallVerifier | None = None) -> str | None:
    """Judge it as the worker would."""
    return (verifier or CallVerifier("key")).check(value, method="POST", path="/direct/r1/", now_seconds=NOW)


def test_a_right_proof_holds_once() -> None:
    """The same nonce again is refused."""
    verifier, value = CallVerifier("key"), signed()
    assert check(value, verifier) == "n"
    assert check(value, verifier) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "a.b.c",
        "1.2",
        "1.2.3.4",
        signed(method="GET"),
        signed(path="/direct/r2/"),
        signed(now=NOW - SKEW_SECONDS - 1),
        signed(now=NOW + SKEW_SECONDS + 1),
        signed(nonce="x" * 65),
        sign_call("other", method="POST", path="/direct/r1/", now_seconds=NOW, nonce="n"),
        "²." + signed().partition(".")[2],
        "9" * 400 + ".n.c",
    ],
)
def test_everything_else_does_not(value: str | None) -> None:
    """Another method, path, time, key or form."""
    assert check(value) is None


@given(st.text(max_size=80))
def test_garbage_is_refused_not_raised(value: str) -> None:
    """Whatever stands in the header."""
    assert check(value) is None


def test_the_worker_proves_itself_by_the_nonce() -> None:
    """For this nonce and this key alone."""
    assert reply_holds("key", "n", sign_reply("key", "n"))
    assert not reply_holds("key", "m", sign_reply("key", "n"))
    assert not reply_holds("key", "n", sign_reply("other", "n"))
    assert not reply_holds("key", "n", None)
    assert not reply_holds("key", "n", "é")


def test_nonces_differ() -> None:
    """96 bits each."""
    chance = SeededChance(1)
    assert len({new_nonce(chance) for _ in range(100)}) == 100


def test_an_empty_key_is_refused_at_start() -> None:
    """Rather than believed."""
    with pytest.raises(ValueError, match="FORESTAY_INTERNAL_KEY"):
        CallVerifier("")
