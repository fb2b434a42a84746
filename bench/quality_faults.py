"""`quality_faults`: real faults in a real pipeline and in media, and whether what exists sees each of them.

The pipeline is the example model `digits` (a complete StableDiffusionPipeline). Each of its faults is injected, then
one canary round is played: twelve plain pictures, four of them with a negative prompt, and two with an adapter. Seen:
by the probes, by the contract, or by the canaries. Each media fault is seen by its contract, or by a drift detector
within 1,000 outputs of the fault. The same means must be silent in 20 healthy canary rounds and in 20 healthy streams
of 1,000 outputs. Streams are drawn from a pool of pictures of the pipeline that is drawn once and kept as features.
"""

import contextlib
import datetime as dt
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from bench.table import Row
from forestay.drills.faults import FAULTS
from forestay.fleet.spec_quality import QualityMode, QualitySpec
from forestay.ids import ModelId
from forestay.media.measures import PICTURE_FEATURES, Measured
from forestay.media.measuring.films import Frames, Track
from forestay.media.measuring.pictures import measure
from forestay.media.measuring.sounds import Samples
from forestay.quality import canary, faults
from forestay.quality.asked import Asked, Served
from forestay.quality.contracts import File, check_output
from forestay.quality.drift import Detector
from forestay.quality.findings import Where
from forestay.quality.probes import check_report, read_report
from forestay.worker.hosts import probe

WEIGHTS = pathlib.Path(__file__).parents[1] / "examples" / "digits" / "weights"
ENFORCED = QualitySpec(QualityMode.ENFORCE)
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
WHERE = Where(ModelId("examples/digits"))
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
STEPS, SIDE = 6, 256
POOL, REFERENCE, HEALTHY, AFTER = 400, 300, 200, 1_000
THRESHOLD = 20_000.0 * 20  # one false alarm in 400,000 outputs, so 20 streams of 1,000 are healthy for 19 in 20 benches
FALSE_RUNS = 20


def run(rounds: int) -> list[Row]:
    """Inject every fault once; `rounds` changes nothing, for seeds are fixed."""
    del rounds
    studio = Studio()
    missed: list[str] = []
    seen_by: dict[str, int] = {}
    for fault in FAULTS:
        with fault.inject(studio.pipe):
            found = studio.play()
        _count(fault.name, found, seen_by, missed)
    false_rounds = sum(bool(studio.play()) for _ in range(FALSE_RUNS))
    pool = studio.pool()
    media, false_streams = _media(pool, seen_by, missed)
    injected = len(FAULTS) + media
    print(f"missed: {', '.join(missed) or 'none'}; seen by {seen_by}")
    return [
        Row("faults injected", injected, "", 35),
        Row("of them detected", 100 * (injected - len(missed)) / injected, "%", 95, note="; ".join(missed)),
        Row("false alarms in 20 healthy canary rounds", false_rounds, "", 0, "<="),
        Row("false alarms in 20 healthy streams of 1,000", false_streams, "", 0, "<="),
    ]


def _count(name: str, found: Sequence[str], seen_by: dict[str, int], missed: list[str]) -> None:
    if not found:
        missed.append(name)
    for means in found[:1]:
        seen_by[means] = seen_by.get(means, 0) + 1


class Studio:
    """The pipeline, its goldens and its canary round."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - as a model's process does
        from diffusers import StableDiffusionPipeline  # noqa: PLC0415

        torch.set_num_threads(1)
        self._torch = torch
        self.pipe: Any = StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)
        self.pipe.set_progress_bar_config(disable=True)
        probe.watch(lambda: "round")
        probe.forestay_probe(self.pipe)
        first, again = self._draw()[0], self._draw()[0]
        pairs = {name: (look, again[name]) for name, look in first.items()}
        learned = {name: canary.learn("here", looks) for name, looks in pairs.items()}
        self.goldens = {name: golden for name, golden in learned.items() if golden is not None}

    def play(self) -> list[str]:
        """Return what sees anything wrong with one canary round, the cheapest first."""
        looks, pictures, asked, reports = self._draw()
        found: list[str] = []
        for text, body in reports:
            report = read_report(text)
            if report is not None and check_report(report, body, WHERE, NOW).findings:
                found.append("probe")
        for made, count in zip(pictures, asked, strict=True):
            files = [File("images[0]", 0, Measured("image", "image/png", measure(image))) for image in made]
            rows = check_output(files, Asked(count=count), Served(count=len(made)), ENFORCED)
            found += ["contract"] * any(row.failed for row in rows)
        compared = [canary.compare(name, looks.get(name), golden) for name, golden in self.goldens.items()]
        adapters = frozenset(name for name in self.goldens if name.startswith("adapter"))
        if canary.decide_round(canary.Round(tuple(compared), adapters), WHERE, NOW) is not None:
            found.append("canary")
        return found

    def _draw(self) -> Any:
        """Play every canary; returns looks by name, pictures and counts by call, and reports with their inputs."""
        looks: dict[str, canary.Look] = {}
        pictures, asked, reports = [], [], []
        for name, prompts, negative, adapter in (
            ("plain", [f"a red {word} on a dark background" for word in WORDS[:4]], None, ""),
            ("light", [f"a blue {word} on a light background" for word in WORDS[4:]], None, ""),
            ("negative", [f"a green {word}" for word in WORDS[:4]], ["a red one"] * 4, ""),
            ("adapter", ["a red three on a dark background"] * 2, None, "thick-strokes"),
        ):
            body = {"num_images": len(prompts), "num_inference_steps": STEPS, "loras": [adapter] if adapter else []}
            with self._styled(adapter):
                made = self._call(prompts, negative)
                reports.append((probe.take("round"), body))
            pictures.append(made)
            asked.append(len(prompts))
            looks |= {f"{name} {place}": canary.look_of(np.asarray(image)) for place, image in enumerate(made)}
        return looks, pictures, asked, [(_without_left(text), body) for text, body in reports]

    def _call(self, prompts: Sequence[str], negative: Sequence[str] | None, seed: int = 11) -> list[Image.Image]:
        generators = [self._torch.Generator().manual_seed(seed + place) for place in range(len(prompts))]
        made = self.pipe(
            prompt=list(prompts), negative_prompt=negative, num_inference_steps=STEPS, guidance_scale=3.0,
            generator=generators,
        ).images  # fmt: skip
        return list(made)

    @contextlib.contextmanager
    def _styled(self, adapter: str) -> Any:
        if not adapter:
            yield
            return
        self.pipe.load_lora_weights(WEIGHTS / "loras", weight_name=f"{adapter}.safetensors", adapter_name=adapter)
        self.pipe.set_adapters([adapter], adapter_weights=[1.0])
        try:
            yield
        finally:
            self.pipe.unload_lora_weights()

    def pool(self) -> list[np.ndarray]:
        """Return pictures of the pipeline for streams, kept between runs as one small file."""
        kept = pathlib.Path(tempfile.gettempdir()) / f"forestay-bench-digits-{os.getuid()}-{POOL}.npz"
        if kept.exists():
            return list(np.load(kept)["pictures"])
        made: list[np.ndarray] = []
        chance = np.random.default_rng(4)
        while len(made) < POOL:
            prompts = [f"a {chance.choice(('red', 'blue', 'green'))} {chance.choice(WORDS)}" for _ in range(20)]
            made += [np.asarray(image) for image in self._call(prompts, None, int(chance.integers(1 << 30)))]
        np.savez_compressed(kept, pictures=np.stack(made))
        return made


def _without_left(text: str) -> str:
    """Leave out what still acts: here a report is taken while the request's own adapter is in."""
    import json  # noqa: PLC0415

    told = json.loads(text) if text else {}
    return json.dumps({name: value for name, value in told.items() if name != "left"})


# Media ----------------------------------------------------------------------------------------------------------------


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _media(pool: list[np.ndarray], seen_by: dict[str, int], missed: list[str]) -> tuple[int, int]:
    """Inject the faults of media; returns how many, and how many of 20 healthy streams alarmed."""
    large = [_enlarged(picture) for picture in pool]
    rows = np.array([measure(Image.fromarray(picture)).features for picture in large])
    few = large[:60]
    injected = false = 0
    for fault in faults.PICTURES:
        chance = np.random.default_rng(fault.row)
        ill = [measure(Image.fromarray(fault.inject(picture, chance))) for picture in few]
        found = _by_contract([Measured("image", "image/png", item) for item in ill])
        found = found or _by_drift(rows, np.array([item.features for item in ill]), PICTURE_FEATURES, fault.row)
        _count(f"picture: {fault.name}", found, seen_by, missed)
        injected += 1
    for number in range(FALSE_RUNS):
        false += bool(_by_drift(rows, rows, PICTURE_FEATURES, 1_000 + number))
    return injected + _films(large, seen_by, missed) + _sounds(seen_by, missed), false


def _by_contract(found: Sequence[Measured]) -> list[str]:
    rows = [row for item in found for row in check_output([File("x", None, item)], Asked(), Served(), ENFORCED)]
    return ["contract"] * any(row.failed for row in rows)


def _by_drift(healthy: np.ndarray, ill: np.ndarray, names: Sequence[str], seed: int) -> list[str]:
    """Follow 200 healthy outputs and then up to 1,000 of the others; an alarm before the change counts as none."""
    chance = np.random.default_rng(seed)
    reference = healthy[chance.integers(len(healthy), size=REFERENCE)].tolist()
    detector = Detector(names, {"": reference}, threshold=THRESHOLD, seed=seed)
    for row in healthy[chance.integers(len(healthy), size=HEALTHY)].tolist():
        if detector.update(row) is not None:
            return []
    for row in ill[chance.integers(len(ill), size=AFTER)].tolist():
        if detector.update(row) is not None:
            return ["drift"]
    return []


def _film(frames: Sequence[np.ndarray]) -> Measured:
    taken = Frames(Track("raw", len(frames)))
    for number, frame in enumerate(frames):
        taken.take(Image.fromarray(frame), number / 12)
    return Measured("video", "video/mp4", taken.first, taken.measures())


def _films(large: list[np.ndarray], seen_by: dict[str, int], missed: list[str]) -> int:
    """Pan over pictures of the pool: 40 films of 12 frames."""
    films = [np.stack([np.roll(picture[::2, ::2], 3 * step, 1) for step in range(12)]) for picture in large[:40]]
    healthy = [_film(film) for film in films]
    rows = np.array([item.film.features for item in healthy if item.film is not None])
    for fault in faults.FILMS:
        chance = np.random.default_rng(fault.row)
        ill = [_film(fault.inject(film, chance)) for film in films[:12]]
        found = _by_contract(ill)
        moved = np.array([item.film.features for item in ill if item.film is not None])
        found = found or _by_drift(rows, moved, [f"f{place}" for place in range(rows.shape[1])], fault.row)
        _count(f"film: {fault.name}", found, seen_by, missed)
    return len(faults.FILMS)


def _heard(sound: np.ndarray) -> Measured:
    taken = Samples(16_000, 1, "raw")
    taken.take(sound[:, None])
    return Measured("audio", "audio/wav", sound=taken.measures())


def _sounds(seen_by: dict[str, int], missed: list[str]) -> int:
    """Tones of several heights that swell and fade."""
    chance = np.random.default_rng(9)
    time = np.arange(16_000) / 16_000
    tones = [
        (0.4 * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sin(4 * np.pi * time))).astype(np.float32)
        for hertz in chance.uniform(200, 900, 120)
    ]
    healthy = [_heard(tone) for tone in tones]
    rows = np.array([item.sound.features for item in healthy if item.sound is not None])
    for fault in faults.SOUNDS:
        drawn = np.random.default_rng(fault.row)
        ill = [_heard(fault.inject(tone, drawn)) for tone in tones[:40]]
        found = _by_contract(ill)
        moved = np.array([item.sound.features for item in ill if item.sound is not None])
        found = found or _by_drift(rows, moved, [f"f{place}" for place in range(rows.shape[1])], fault.row)
        _count(f"sound: {fault.name}", found, seen_by, missed)
    return len(faults.SOUNDS)


if __name__ == "__main__":
    sys.exit("run it as python -m bench quality_faults")
