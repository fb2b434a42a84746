"""Faults of diffusers pipelines, each put into a live pipeline and taken out again.

Every fault names its row of the catalogue of failures and is a context manager over a pipeline: inside, the pipeline
has the fault; afterwards it is as it was. Media faults, which need no pipeline, are in `quality/faults`. For tests,
benches and game days, in a process that holds the pipeline; torch and peft are taken from there, never imported by the
platform's own processes.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

Inject = Callable[[Any], AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineFault:
    """A fault of a pipeline."""

    name: str
    row: int  # of the catalogue
    inject: Inject
    each: bool = False  # of the pipeline itself, not of networks that several pipelines of a process may share


def _torch() -> Any:
    return importlib.import_module("torch")


# How a pipeline is changed for a while -------------------------------------------------------------------------------


@contextmanager
def _attribute(holder: Any, name: str, value: Any) -> Generator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def _output(module: Any, change: Callable[[Any, int], Any]) -> Generator[None]:
    """Change what a network gives; the second argument counts its calls from 0."""
    calls = iter(range(1 << 60))

    def hook(_module: Any, _inputs: Any, made: Any) -> Any:
        number = next(calls)
        if isinstance(made, tuple):
            return (change(made[0], number), *made[1:])
        for name in ("sample", "last_hidden_state"):
            if hasattr(made, name):
                made[name] = change(made[name], number)
                return made
        return change(made, number)

    handle = module.register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _weights(module: Any, change: Callable[[Any], Any], pick: Callable[[str], bool] = bool) -> Generator[None]:
    """Change every picked tensor of floating point in place, and put the old values back."""
    with _torch().no_grad():
        kept = {name: tensor for name, tensor in module.named_parameters() if pick(name)}
        before = {name: tensor.detach().clone() for name, tensor in kept.items()}
        for tensor in kept.values():
            tensor.copy_(change(tensor.detach().clone()))
    try:
        yield
    finally:
        with _torch().no_grad():
            for name, tensor in kept.items():
                tensor.copy_(before[name])


def _scheduler(kind: str | None = None, **config: Any) -> Inject:
    @contextmanager
    def inject(pipe: Any) -> Generator[None]:
        old = pipe.scheduler
        maker = cast("Any", type(old) if kind is None else getattr(importlib.import_module("diffusers"), kind))
        with _attribute(pipe, "scheduler", maker.from_config({**old.config, **config})):
            yield

    return inject


@contextmanager
def _call(pipe: Any, around: Callable[[Callable[..., Any], dict[str, Any]], Any]) -> Generator[None]:
    """Stand between the app and its pipeline: `around` gets the plain call and the arguments by name."""
    kind = cast("Any", type(pipe))

    def call(self: Any, prompt: Any = None, **given: Any) -> Any:
        return around(functools.partial(kind.__call__, self), {"prompt": prompt, **given})

    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    try:
        yield
    finally:
        pipe.__class__ = kind


def _given(**fixed: Any) -> Inject:
    """Return a fault that calls the pipeline with these arguments whatever the app says."""
    return lambda pipe: _call(pipe, lambda plain, given: plain(**{**given, **fixed}))


def _pictures(change: Callable[[list[Any]], list[Any]]) -> Inject:
    def around(plain: Callable[..., Any], given: dict[str, Any]) -> Any:
        made = plain(**given)
        made.images = change(list(made.images))
        return made

    return lambda pipe: _call(pipe, around)


# Numbers that are none -----------------------------------------------------------------------------------------------


def _overflow(value: Any, _number: int) -> Any:
    """Return what half precision makes of a value whose scale is too large for it."""
    return (value.half() * 60_000.0 * 60_000.0).to(value.dtype)


def _nan_at(step: int) -> Callable[[Any, int], Any]:
    return lambda value, number: value * float("nan") if number == step else value


# Weights -------------------------------------------------------------------------------------------------------------


def _rounded(bits: int) -> Callable[[Any], Any]:
    """Return symmetric rounding of a tensor to so many bits, one scale for all of it."""

    def change(tensor: Any) -> Any:
        scale = tensor.abs().max().clamp(min=1e-12) / (2 ** (bits - 1) - 1)
        return (tensor / scale).round() * scale

    return change


def _noisy(share: float) -> Callable[[Any], Any]:
    def change(tensor: Any) -> Any:
        torch = _torch()
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5)).to(tensor)
        return tensor + share * noise * (tensor.std(unbiased=False) if tensor.numel() else 0.0)

    return change


def _one_flipped(tensor: Any) -> Any:
    """Flip the sign of the largest weight: one bit."""
    flat = tensor.reshape(-1)
    place = int(flat.abs().argmax())
    flat[place] = -flat[place]
    return tensor


def _as_bfloat16(tensor: Any) -> Any:
    return tensor.bfloat16().to(tensor.dtype)


def _biggest(part: str, change: Callable[[Any], Any]) -> Inject:
    """Return a fault of the one tensor of a part that has most values."""

    def inject(pipe: Any) -> AbstractContextManager[None]:
        module = functools.reduce(getattr, part.split("."), pipe)
        name = max(module.named_parameters(), key=lambda item: item[1].numel())[0]
        return _weights(module, change, lambda other: other == name)

    return inject


def _all(part: str, change: Callable[[Any], Any]) -> Inject:
    return lambda pipe: _weights(getattr(pipe, part), change)


# The decoder ---------------------------------------------------------------------------------------------------------


def _scaling(factor: float) -> Inject:
    @contextmanager
    def inject(pipe: Any) -> Generator[None]:
        before = pipe.vae.config.scaling_factor
        pipe.vae.register_to_config(scaling_factor=before * factor)
        try:
            yield
        finally:
            pipe.vae.register_to_config(scaling_factor=before)

    return inject


def _decoder(change: Callable[[Any, int], Any]) -> Inject:
    return lambda pipe: _output(pipe.vae.decoder, change)


def _seams(value: Any, _number: int) -> Any:
    made = value.clone()
    half = value.shape[-1] // 2
    made[..., :half] += 0.15
    return made


def _checkerboard(value: Any, _number: int) -> Any:
    torch = _torch()
    down = torch.arange(value.shape[-2], device=value.device)[:, None]
    across = torch.arange(value.shape[-1], device=value.device)[None, :]
    return value + 0.15 * (1 - 2 * ((down + across) % 2)).to(value)


def _stripes(value: Any, _number: int) -> Any:
    return value + 0.12 * (_torch().arange(value.shape[-2], device=value.device)[:, None] % 2).to(value)


@contextmanager
def _latents_swapped(pipe: Any) -> Generator[None]:
    """Hand the decoder its first two channels in each other's place."""

    def hook(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        order = [1, 0, *range(2, inputs[0].shape[1])]
        return (inputs[0][:, order], *inputs[1:])

    handle = pipe.vae.decoder.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


# Conditioning --------------------------------------------------------------------------------------------------------


def _zeroed(value: Any, _number: int) -> Any:
    return value * 0.0


@contextmanager
def _remembered(pipe: Any) -> Generator[None]:
    """Use the text of the call before: a cache of embeddings without a key."""
    last: list[Any] = []

    def change(value: Any, number: int) -> Any:
        last.append(value.detach().clone())
        usable = number > 1 and last[-3].shape == value.shape
        return last[-3] if usable else value

    with _output(pipe.text_encoder, change):
        yield


@contextmanager
def _layer_skipped(pipe: Any) -> Generator[None]:
    """Run the text encoder without its last layer."""
    encoder = getattr(pipe.text_encoder, "text_model", pipe.text_encoder).encoder
    kept = encoder.layers
    with _attribute(encoder, "layers", kept[:-1]):
        yield


def _shifted_labels(pipe: Any) -> AbstractContextManager[None]:
    """Give each token the embedding of its neighbour."""

    def change(tensor: Any) -> Any:
        return tensor.roll(1, 0)

    return _weights(pipe.text_encoder, change, lambda name: name.endswith("token_embedding.weight"))


def _cut(pipe: Any) -> AbstractContextManager[None]:
    """Keep three tokens of a prompt."""
    return _attribute(pipe.tokenizer, "model_max_length", 3)


def _without_negative(plain: Callable[..., Any], given: dict[str, Any]) -> Any:
    return plain(**{**given, "negative_prompt": None})


def _other_seed(plain: Callable[..., Any], given: dict[str, Any]) -> Any:
    return plain(**{**given, "generator": None})


# Adapters ------------------------------------------------------------------------------------------------------------


@contextmanager
def _leaked(pipe: Any) -> Generator[None]:
    """Leave an adapter in the network that nobody asked for."""
    peft, torch = importlib.import_module("peft"), _torch()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        pipe.unet.add_adapter(peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]), "leaked")
    try:
        yield
    finally:
        pipe.unet.delete_adapters(["leaked"])
        pipe.unload_lora_weights()


@contextmanager
def _unapplied(pipe: Any) -> Generator[None]:
    """Take adapters and do nothing with them."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    with ExitStack() as stack:
        for name in ("load_lora_weights", "set_adapters", "unload_lora_weights"):
            setattr(pipe, name, nothing)
            stack.callback(delattr, pipe, name)
        yield


# What is handed out --------------------------------------------------------------------------------------------------


@contextmanager
def _stale(pipe: Any) -> Generator[None]:
    """Hand out the first answer again and again: a cache with too short a key."""
    first: list[Any] = []

    def around(plain: Callable[..., Any], given: dict[str, Any]) -> Any:
        made = plain(**given)
        first.append(list(made.images))
        made.images = [first[0][number % len(first[0])] for number in range(len(made.images))]
        return made

    with _call(pipe, around):
        yield


def _exchanged(images: list[Any]) -> list[Any]:
    """Exchange red and blue."""
    made = importlib.import_module("PIL.Image")
    return [made.merge("RGB", image.split()[::-1]) for image in images]


def _resampled(images: list[Any]) -> list[Any]:
    return [image.resize((image.width // 2, image.height // 2)).resize(image.size) for image in images]


def _fewer(images: list[Any]) -> list[Any]:
    return images[:-1]


def _misordered(images: list[Any]) -> list[Any]:
    return images[1:] + images[:1]


FAULTS = (
    PipelineFault("half overflows in the denoiser", 1, lambda pipe: _output(pipe.unet, _overflow)),
    PipelineFault("half overflows in the decoder", 2, _decoder(_overflow)),
    PipelineFault("half overflows in the text encoder", 1, lambda pipe: _output(pipe.text_encoder, _overflow)),
    PipelineFault("sliced attention poisons the network", 3, lambda pipe: _output(pipe.unet, _nan_at(1))),
    PipelineFault("a compiled network makes no numbers late", 4, lambda pipe: _output(pipe.unet, _nan_at(4))),
    PipelineFault("a compiled network is off by 1 %", 5, _all("unet", _noisy(0.01))),
    PipelineFault("weights in 3 bits", 6, _all("unet", _rounded(3))),
    PipelineFault("checkerboard", 7, _decoder(_checkerboard)),
    PipelineFault("weights in 8 bits", 8, _all("unet", _rounded(8))),
    PipelineFault("weights in 4 bits", 8, _all("unet", _rounded(4))),
    PipelineFault("weights cast to bfloat16", 8, _all("unet", _as_bfloat16)),
    PipelineFault("prediction type v for epsilon", 9, _scheduler(prediction_type="v_prediction"), each=True),
    PipelineFault("prediction type sample", 9, _scheduler(prediction_type="sample"), each=True),
    PipelineFault("linear betas", 10, _scheduler(beta_schedule="linear"), each=True),
    PipelineFault("half as many training steps", 10, _scheduler(num_train_timesteps=500), each=True),
    PipelineFault("zero-SNR betas with epsilon", 11, _scheduler(rescale_betas_zero_snr=True), each=True),
    PipelineFault("leading timestep spacing", 12, _scheduler(timestep_spacing="leading"), each=True),
    PipelineFault("samples clipped", 12, _scheduler(clip_sample=True), each=True),
    PipelineFault("another scheduler", 13, _scheduler("EulerDiscreteScheduler"), each=True),
    PipelineFault("2 steps", 14, _given(num_inference_steps=2), each=True),
    PipelineFault("one step less", 14, lambda pipe: _call(pipe, lambda plain, given: plain(**_less(given))), each=True),
    PipelineFault("decoder's scale 20 % too small", 15, _scaling(0.8)),
    PipelineFault("decoder's scale 40 % too large", 15, _scaling(1.4)),
    PipelineFault("latent channels exchanged", 16, _latents_swapped),
    PipelineFault("seam between tiles", 17, _decoder(_seams)),
    PipelineFault("red and blue exchanged", 18, _pictures(_exchanged), each=True),
    PipelineFault("an adapter is left in", 23, _leaked),
    PipelineFault("an adapter is not applied", 24, _unapplied, each=True),
    PipelineFault("prompts cut after 3 tokens", 26, _cut),
    PipelineFault("a layer with fresh weights", 27, _biggest("unet", _noisy(1.0))),
    PipelineFault("text encoder's output is empty", 28, lambda pipe: _output(pipe.text_encoder, _zeroed)),
    PipelineFault("text encoder without its last layer", 28, _layer_skipped),
    PipelineFault("labels off by one", 28, _shifted_labels),
    PipelineFault("guidance off", 28, _given(guidance_scale=1.0), each=True),
    PipelineFault("negative prompt ignored", 28, lambda pipe: _call(pipe, _without_negative), each=True),
    PipelineFault("text of the request before", 28, _remembered),
    PipelineFault("one bit of a weight flipped", 29, _biggest("unet", _one_flipped)),
    PipelineFault("one bit of the decoder flipped", 29, _biggest("vae.decoder", _one_flipped)),
    PipelineFault("guidance of 20", 30, _given(guidance_scale=20.0), each=True),
    PipelineFault("seed ignored", 33, lambda pipe: _call(pipe, _other_seed), each=True),
    PipelineFault("first answer again and again", 34, _stale, each=True),
    PipelineFault("one picture too few", 35, _pictures(_fewer), each=True),
    PipelineFault("pictures in another order", 35, _pictures(_misordered), each=True),
    PipelineFault("drawn at half the size and enlarged", 36, _pictures(_resampled), each=True),
    PipelineFault("stripes", 37, _decoder(_stripes)),
)


def _less(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "num_inference_steps": max(1, int(given.get("num_inference_steps", 50)) - 1)}
