"""The sentence model in integers: the same on every processor, close to the one in floating point."""

import functools

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from forestay import sentences, sentences_in_integers
from forestay.errors import UsageError
from forestay.sentences import Sentences, missing
from forestay.sentences_in_integers import in_integers

pytestmark = pytest.mark.skipif(bool(missing(integers=True)), reason="the extra `safety` is not installed")
TEXTS = ("a lighthouse at dawn", "two foxes in deep snow, 35mm photograph, soft light, shallow depth of field")


@functools.cache
def model(*, integers: bool) -> Sentences:
    """Return one of the two."""
    return Sentences("safety", integers=integers)


@pytest.mark.parametrize("text", TEXTS)
def test_vectors_are_close_to_those_in_floating_point(text: str) -> None:
    """By the angle between those of the last layer, which gathers what all before it lost."""
    plain = model(integers=False)
    tokens = plain.tokens(text)
    [alike] = (plain.means(tokens) * model(integers=True).means(tokens)[-1:]).sum(axis=1)
    assert alike > 0.97


def test_processors_that_need_unsigned_weights_get_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a text has one score wherever it is judged."""
    if not sentences_in_integers.signed_are_safe():
        pytest.skip("signed weights overflow on this processor")
    found = []
    for signed in (True, False):
        monkeypatch.setattr(sentences_in_integers, "signed_are_safe", lambda signed=signed: signed)
        found.append(Sentences("safety", integers=True).means(model(integers=False).tokens(TEXTS[1])))
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_a_model_laid_out_otherwise_is_refused_by_the_name_of_what_it_lacks() -> None:
    """Rather than built with something else in its place."""
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "b")]
    empty = onnx.helper.make_model(onnx.helper.make_graph([node], "none", ends[:1], ends[1:]))
    with pytest.raises(ValueError, match="word_embeddings"):
        in_integers(empty.SerializeToString(), signed=True)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an ImportError at the first text."""
    monkeypatch.setattr(sentences, "missing", lambda **_: "onnx")
    with pytest.raises(UsageError, match=r"onnx.*forestay\[safety\]"):
        Sentences("safety", integers=True)
