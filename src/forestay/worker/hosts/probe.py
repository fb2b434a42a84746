"""Watches diffusers pipelines from inside the model's process: what they did, and the first stage that made no numbers.

It decides nothing. It needs the standard library and, when a pipeline is there, what the pipeline brings; `shim` loads
this one file beside itself. Every pipeline class is wrapped once, with a hook on each network and on the scheduler's
step. A hook only leaves a flag on the device; flags are read once, when the call is over. Prompts are counted, never
kept. An app that wants a pipeline watched before its setup() has ended, or one that is no diffusers class, says so:

    from forestay_probe import forestay_probe
    forestay_probe(pipe)
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib.metadata
import json
import math
import sys
import threading
import typing
import weakref

MAX_CALLS = 8  # of one request that are told
MAX_FLAGS = 4_000  # of one call
MAX_ADAPTERS = 16
MAX_REPORT_CHARS = 6_000
MAX_REQUESTS = 1_000  # whose reports wait
MAX_WHOLE_BYTES = 64 * 1024 * 1024  # of weights that are read to the last byte; of larger ones, samples
SAMPLES = 4_096  # values of one tensor
MAX_SETTINGS = 40  # of one scheduler
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
# Stage by stage, in the order of a call: where the numbers of a pipeline come from.
STAGES = (
    ("text_encoder", "text_encoder"),
    ("text_encoder_2", "text_encoder"),
    ("text_encoder_3", "text_encoder"),
    ("unet", "denoiser"),
    ("transformer", "denoiser"),
    ("vae", "vae"),
)

Call = typing.Dict[str, typing.Any]  # noqa: UP006 - read by whatever Python the model has


class _Record:
    """One call that is running."""

    def __init__(self) -> None:
        self.flags: list[tuple[str, int, typing.Any]] = []
        self.steps = 0


_record: contextvars.ContextVar[_Record | None] = contextvars.ContextVar("forestay_probe", default=None)
_lock = threading.Lock()
_reports: dict[str, list[Call]] = {}
_pipelines: list[weakref.ref[typing.Any]] = []
_hooked: weakref.WeakSet[typing.Any] = weakref.WeakSet()
_configs: weakref.WeakKeyDictionary[typing.Any, str] = weakref.WeakKeyDictionary()
_digests: weakref.WeakKeyDictionary[typing.Any, str] = weakref.WeakKeyDictionary()
_places: weakref.WeakKeyDictionary[typing.Any, tuple[object, str, str]] = weakref.WeakKeyDictionary()


def _nobody() -> str | None:
    return None


_request_of: typing.Callable[[], str | None] = _nobody
_turn = threading.Condition()
_running = 0  # calls of pipelines


def watch(request_of: typing.Callable[[], str | None]) -> None:
    """Watch every pipeline class that is loaded, and those to come. `request_of` says which request is being run."""
    global _request_of  # noqa: PLW0603 - one process serves one app
    _request_of = request_of
    loaded = sys.modules.get("diffusers.pipelines.pipeline_utils")
    base = getattr(loaded, "DiffusionPipeline", None)
    if base is None or getattr(base, "forestay_watched", False):
        return
    base.forestay_watched = True
    for kind in _kinds_below(base):
        _wrap(kind)

    def follow(cls: typing.Any, **_: object) -> None:
        _wrap(cls)

    base.__init_subclass__ = classmethod(follow)


def forestay_probe(pipe: typing.Any) -> typing.Any:
    """Watch one pipeline; returns it."""
    _wrap(type(pipe))
    _hook(pipe)
    return pipe


def _kinds_below(base: typing.Any) -> list[typing.Any]:
    found = [base]
    for kind in found:  # grows while it is walked
        found.extend(below for below in kind.__subclasses__() if below not in found)
    return found


def _wrap(kind: typing.Any) -> None:
    plain = typing.cast("dict[str, typing.Any]", vars(kind)).get("__call__")
    if plain is None or getattr(plain, "forestay_watched", False):
        return

    @functools.wraps(plain)
    def watched(self: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        if _record.get() is not None:  # a pipeline within a pipeline belongs to the outer one
            return plain(self, *args, **kwargs)
        record = _Record()
        token = _record.set(record)
        before: dict[str, float] = {}
        _count(1)
        try:
            _hook(self)
            before = adapters_of(self)
            return plain(self, *args, **kwargs)
        finally:
            _count(-1)
            _record.reset(token)
            _keep(_told(self, record, before, _given(args, kwargs)))

    watched.forestay_watched = True  # type: ignore[attr-defined]
    kind.__call__ = watched


def _count(change: int) -> None:
    global _running  # noqa: PLW0603 - one process serves one app
    with _turn:
        _running += change
        _turn.notify_all()


@contextlib.contextmanager
def between_calls(seconds: float) -> typing.Generator[None]:
    """Hold new calls back while the block runs; it begins once none runs, or after so many seconds all the same."""
    with _turn:
        _turn.wait_for(lambda: _running == 0, seconds)
        yield


def pipelines() -> list[typing.Any]:
    """Return the pipelines that are known and alive."""
    return [pipe for known in _pipelines if (pipe := known()) is not None]


def _hook(pipe: typing.Any) -> None:
    """Put a hook on each network of a pipeline that has none yet."""
    if not any(known() is pipe for known in _pipelines):
        _pipelines[:] = [known for known in _pipelines if known() is not None][-63:]
        _pipelines.append(weakref.ref(pipe))
    for name, stage in STAGES:
        module = getattr(pipe, name, None)
        module = getattr(module, "decoder", module) if stage == "vae" else module
        if module is None or module in _hooked or not hasattr(module, "register_forward_hook"):
            continue
        _hooked.add(module)
        module.register_forward_hook(functools.partial(_look, stage))
    scheduler = getattr(pipe, "scheduler", None)
    step = typing.cast("typing.Any", getattr(typing.cast("typing.Any", type(scheduler)), "step", None))
    if step is not None and not getattr(step, "forestay_watched", False):

        @functools.wraps(step)
        def counted(self: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            record = _record.get()
            if record is not None:
                record.steps += 1
            made = step(self, *args, **kwargs)
            _flag("scheduler", made)
            return made

        counted.forestay_watched = True  # type: ignore[attr-defined]
        type(scheduler).step = counted  # type: ignore[union-attr]


def _look(stage: str, _module: typing.Any, _inputs: typing.Any, made: typing.Any) -> None:
    _flag(stage, made)


def _flag(stage: str, made: typing.Any) -> None:
    """Leave on the device whether all numbers of an output are finite; nothing waits for the device, nothing raises."""
    record, torch = _record.get(), typing.cast("typing.Any", sys.modules.get("torch"))
    if record is None or torch is None or len(record.flags) >= MAX_FLAGS:
        return
    value: typing.Any = made
    for name in ("sample", "last_hidden_state", "prev_sample"):
        value = getattr(value, name, value)
    if isinstance(value, (tuple, list)):
        value = typing.cast("typing.Any", next(iter(value), None))  # pyright: ignore[reportUnknownArgumentType]
    if not torch.is_tensor(value) or not value.is_floating_point():
        return
    # One pass: a sum is finite only where all of its numbers are; in double precision, half cannot overflow it.
    wide = torch.float32 if value.device.type == "mps" else torch.float64
    record.flags.append((stage, record.steps, value.detach().sum(dtype=wide)))


def _first_not_finite(record: _Record) -> dict[str, object] | None:
    if not record.flags:
        return None
    torch = sys.modules["torch"]
    sums = torch.stack([flag.to(record.flags[-1][2].device) for _, _, flag in record.flags]).tolist()
    for (stage, step, _), total in zip(record.flags, sums):  # noqa: B905 - a model's Python may be older
        if not math.isfinite(total):
            return {"stage": stage, "step": step}
    return None


def _given(args: tuple[typing.Any, ...], kwargs: dict[str, typing.Any]) -> dict[str, typing.Any]:
    return {**({"prompt": args[0]} if args else {}), **kwargs}


def _told(pipe: typing.Any, record: _Record, before: dict[str, float], given: dict[str, typing.Any]) -> Call:
    """Return what is told of a call. Never raises: what a pipeline does not show is left out."""
    told: Call = {"pipeline": type(pipe).__name__, "steps": record.steps, "adapters": before}
    looks: dict[str, typing.Callable[[], typing.Any]] = {
        "scheduler": lambda: type(pipe.scheduler).__name__,
        "scheduler_digest": lambda: config_digest(pipe.scheduler),
        "scheduler_order": lambda: int(getattr(pipe.scheduler, "order", 1)),
        "steps_given": lambda: _number(given.get("num_inference_steps")),
        "guidance": lambda: _number(given.get("guidance_scale")),
        "strength": lambda: _number(given.get("strength")),
        "dtype": lambda: _place_of(pipe)[0],
        "vae_dtype": lambda: _place(pipe.vae)[0],
        "device": lambda: _place_of(pipe)[1],
        "tokens": lambda: _tokens(pipe, given.get("prompt")),
        "not_finite": lambda: _first_not_finite(record),
    }
    for name, look in looks.items():
        try:
            value = look()
        except Exception:  # noqa: BLE001, S112 - any pipeline may lack any part
            continue
        if value is not None:
            told[name] = value
    return told


def _is_network(part: typing.Any) -> bool:
    """Tell whether a part has weights, without asking its properties, which cost milliseconds."""
    kind: typing.Any = typing.cast("object", part).__class__
    return hasattr(kind, "parameters") and hasattr(kind, "dtype")


def _place(part: typing.Any) -> tuple[str, str]:
    """Return a part's precision and device.

    diffusers walks every module for each of the two, some milliseconds of each call of a small pipeline. Asked once,
    the answer holds for as long as the first weight is of the same kind and at the same place.
    """
    first = next(part.parameters(), None)
    now = None if first is None else (first.dtype, first.device)
    known = _places.get(part)
    if known is None or known[0] != now:
        known = now, str(part.dtype).rpartition(".")[2], str(part.device)
        _places[part] = known
    return known[1], known[2]


def _place_of(pipe: typing.Any) -> tuple[str, str]:
    """Return the precision and the device of a pipeline: those of its first network, as diffusers says it."""
    known = typing.cast("typing.Iterable[str]", getattr(pipe, "config", {}))
    for part in (getattr(pipe, name, None) for name in known):
        if _is_network(part):
            return _place(part)
    return str(getattr(pipe, "dtype", "")).rpartition(".")[2], str(getattr(pipe, "device", ""))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _tokens(pipe: typing.Any, prompt: typing.Any) -> list[int] | None:
    """Return how many tokens of the longest prompt the encoder keeps, and how many it cuts off."""
    prompts = [prompt] if isinstance(prompt, str) else list(dict.fromkeys(prompt or ()))[:4]
    if not prompts or not all(isinstance(item, str) for item in typing.cast("list[object]", prompts)):
        return None
    longest = max(len(ids) for ids in pipe.tokenizer(prompts, truncation=False, verbose=False).input_ids)
    kept = min(longest, int(pipe.tokenizer.model_max_length))
    return [kept, longest - kept]


def adapters_of(pipe: typing.Any) -> dict[str, float]:
    """Return the adapters that act in a pipeline now, with their scales; merged ones count."""
    found: dict[str, float] = {}
    for name, _ in STAGES:
        part = getattr(pipe, name, None)
        if part is None or not getattr(part, "peft_config", None):
            continue
        for module in part.modules():
            scaling = typing.cast("dict[object, float] | None", getattr(module, "scaling", None))
            if not isinstance(scaling, dict):
                continue
            live = list(getattr(module, "merged_adapters", ()))
            if not getattr(module, "disable_adapters", False):
                live += list(getattr(module, "active_adapters", ()))
            found.update({str(key)[:64]: float(scaling.get(key, 0.0)) for key in live if scaling.get(key)})
            break  # every layer of a part has the same
    return dict(list(found.items())[:MAX_ADAPTERS])


def _keep(told: Call) -> None:
    request = _request_of()
    if request is None:
        return
    with _lock:
        calls = _reports.setdefault(request, [])
        if len(calls) < MAX_CALLS:
            calls.append(told)
        while len(_reports) > MAX_REQUESTS:
            del _reports[next(iter(_reports))]


def take(request: str | None, *, weights: bool = False) -> str:
    """Return the report of a request as one line of JSON, and forget it; empty when no pipeline was called for it.

    With `weights` the weights are read again, so that one that has changed since shows in the fingerprint, and the
    settings of schedulers are told one by one.
    """
    with _lock:
        calls = _reports.pop(request, None) if request is not None else None
    if not calls:
        return ""
    live = [pipe for known in _pipelines if (pipe := known()) is not None]
    left: dict[str, float] = {}
    for pipe in live:
        left.update(adapters_of(pipe))
    prints = [fingerprint(pipe, weights=weights) for pipe in live[:MAX_CALLS]]
    report = {"calls": calls, "left": left, "fingerprint": _digest(prints), "environment": environment(live)}
    settings = {type(pipe).__name__: scheduler_settings(pipe) for pipe in live[:MAX_CALLS]} if weights else {}
    for more in ({"prints": prints, "settings": settings}, {"prints": prints}, {}):
        text = json.dumps({**report, **more}, separators=(",", ":"))
        if len(text) <= MAX_REPORT_CHARS:
            return text
    return json.dumps({"calls": calls[:1], "fingerprint": _digest(prints)})


def forget(request: str | None) -> None:
    """Drop what nobody has taken."""
    if request is not None:
        with _lock:
            _reports.pop(request, None)


# Fingerprints --------------------------------------------------------------------------------------------------------


def fingerprints() -> list[dict[str, object]]:
    """Return the fingerprint of each pipeline that is alive."""
    return [fingerprint(pipe) for known in _pipelines if (pipe := known()) is not None][:MAX_CALLS]


def find_pipelines(holder: object) -> None:
    """Take note of pipelines that an app holds as attributes, so that they have a fingerprint before the first call."""
    base = getattr(sys.modules.get("diffusers.pipelines.pipeline_utils"), "DiffusionPipeline", None)
    if base is None:
        return
    for value in list(getattr(holder, "__dict__", {}).values()):
        if isinstance(value, base):
            _hook(value)


def fingerprint(pipe: typing.Any, *, weights: bool = False) -> dict[str, object]:
    """Return what an output depends on beside its input: parts, settings, weights, precision, device, libraries."""
    parts: dict[str, object] = {}
    for name, part in sorted(getattr(pipe, "components", {}).items()):
        if part is None:
            continue
        told: dict[str, object] = {"class": type(part).__name__, "config": config_digest(part)}
        if _is_network(part):
            dtype, where = _place(part)
            told |= {"dtype": dtype, "device": where.partition(":")[0]}
            told["weights"] = weights_digest(part, again=weights)
        parts[name] = told
    device = _place_of(pipe)[1].partition(":")[0]
    return {
        "pipeline": type(pipe).__name__,
        "parts": parts,
        "libraries": _libraries(),
        "device": _device_name(device),
    }


def environment(live: list[typing.Any]) -> str:
    """Return in one line where pipelines run: class of device, and versions of the libraries."""
    devices = sorted({_device_name(str(getattr(pipe, "device", "")).partition(":")[0]) for pipe in live})
    versions = [f"{name} {version}" for name, version in _libraries().items()]
    return ", ".join([*devices, *versions])[:400]


@functools.lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.lru_cache(maxsize=8)
def _device_name(device: str) -> str:
    torch = sys.modules.get("torch")
    if device == "cuda" and torch is not None:
        return str(torch.cuda.get_device_name())
    if device == "cpu" and torch is not None:
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"  # which kernels it runs
    return device


def config_digest(part: typing.Any) -> str:
    """Return a digest of a part's settings, without paths and versions."""
    fixed = hasattr(part, "parameters") and part.__hash__ is not None  # a network's settings are its shape
    if fixed and part in _configs:
        return _configs[part]
    config = getattr(part, "config", None)
    values: typing.Any = config.to_dict() if config is not None and hasattr(config, "to_dict") else config
    if values is None:
        return ""
    kept = {str(key): value for key, value in dict(values).items() if not str(key).startswith("_")}
    for name in ("transformers_version", "torch_dtype", "dtype"):
        kept.pop(name, None)
    digest = _digest(kept)
    if fixed:
        _configs[part] = digest
    return digest


def scheduler_settings(pipe: typing.Any) -> dict[str, str]:
    """Return the settings of a scheduler that are one value each, as text: one that has changed then has a name."""
    kept: dict[str, str] = {}
    for name, value in sorted(dict(getattr(getattr(pipe, "scheduler", None), "config", None) or {}).items()):
        plain = value is None or isinstance(value, (str, int, float))
        if plain and not str(name).startswith("_") and len(kept) < MAX_SETTINGS:
            kept[str(name)[:40]] = str(value)[:40]
    return kept


def weights_digest(module: typing.Any, *, again: bool = False) -> str:
    """Return a digest of live weights: of every byte up to MAX_WHOLE_BYTES, beyond of samples of each tensor."""
    if not again and module in _digests:
        return _digests[module]
    torch = sys.modules["torch"]
    # Weights of adapters come and go by request and are told by name; a layer keeps its own weight as base_layer.
    tensors = [
        (name.replace(".base_layer", ""), tensor)
        for name, tensor in module.state_dict().items()
        if ".lora_" not in name
    ]
    whole = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors) <= MAX_WHOLE_BYTES
    made = hashlib.sha256()
    for name, tensor in tensors:
        flat = tensor.detach().reshape(-1)
        flat = flat if whole else flat[:: max(1, len(flat) // SAMPLES)]
        made.update(name.encode())
        made.update(flat.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    _digests[module] = ("" if whole else "sampled-") + made.hexdigest()[:16]
    return _digests[module]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
