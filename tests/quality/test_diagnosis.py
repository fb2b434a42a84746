"""Diagnosis: which row of the catalogue, and which value explains a change."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.quality.streams import broken, fact, healthy, moved

from forestay.fleet.spec_quality import OutputCheck
from forestay.media.measures import FILM_FEATURES, PICTURE_FEATURES, SOUND_FEATURES
from forestay.media.measuring.pictures import measure
from forestay.quality import catalogue, faults
from forestay.quality.diagnosis import by_signature, contrast_of, diagnose, middle_of, shifts_of
from forestay.quality.watching import Reference, stratum_in, stratum_of
from forestay.telemetry.output_facts import OutputFact

REFERENCE = {stratum_of(fact(0)): [item.features for item in healthy(200, 9)]}


def drawn(chance: np.random.Generator) -> faults.Picture:
    """Return a picture of waves, boxes and a little noise."""
    down, across = np.indices((96, 96)).astype(float)
    ground = sum(
        30 * np.sin(down * chance.uniform(0.02, 0.2) + across * chance.uniform(0.02, 0.2) + chance.uniform(0, 6))
        for _ in range(3)
    )
    warm = np.array([30.0, 0.0, -30.0])
    made = 128 + warm + np.asarray(ground)[..., None] * chance.uniform(0.3, 1, 3) + 15 * chance.standard_normal(3)
    for _ in range(3):
        top, left = chance.integers(0, 76, 2)
        made[top : top + 20, left : left + 20] = chance.uniform(0, 255, 3)
    large = Image.fromarray(made.clip(0, 255).astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
    noisy = np.asarray(large) + 3 * chance.standard_normal((128, 128, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures() -> list[list[float]]:
    """Numbers of sixty healthy pictures."""
    chance = np.random.default_rng(1)
    return [list(measure(Image.fromarray(drawn(chance))).features) for _ in range(60)]


SEEN = [fault for fault in faults.PICTURES if fault.check is None]


@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.name)
def test_a_fault_of_pictures_is_named_among_the_first_three(
    fault: faults.PictureFault, pictures: list[list[float]]
) -> None:
    """From the shifts of the numbers alone, on pictures that were drawn for it."""
    chance = np.random.default_rng(2)
    rows = [measure(Image.fromarray(fault.inject(drawn(chance), chance))).features for _ in range(20)]
    shift = middle_of(shifts_of(rows, [""] * len(rows), {"": pictures}))
    named = by_signature(dict(zip(PICTURE_FEATURES, shift.tolist(), strict=True)), "image")
    alike = {16, 18} if fault.row == 18 else {fault.row}  # exchanged colours: which ones were, the numbers do not tell
    assert alike & {item.row for item in named[:3]}, named


def test_a_bad_replica_explains_a_change_and_its_peers_are_healthy() -> None:
    """Outputs of one replica moved, those of two others did not."""
    facts = moved(healthy(150, 3), "dots", 8.0, "b")
    told = diagnose(facts, REFERENCE, [stratum_of(item) for item in facts])
    assert told.contrast is not None
    assert (told.contrast.dimension, told.contrast.value) == ("replica", "b")
    assert (told.bad, told.healthy, told.everywhere) == (frozenset("b"), frozenset("ac"), False)
    assert told.named[0].row == 19
    assert max(told.shifts, key=lambda name: abs(told.shifts[name])) == "dots"


def test_a_change_of_all_replicas_is_the_revision() -> None:
    """No value explains it, and no replica is healthy."""
    facts = moved(healthy(150, 3), "dots", 8.0)
    told = diagnose(facts, REFERENCE, [stratum_of(item) for item in facts])
    assert told.contrast is None
    assert told.everywhere


def test_a_size_explains_a_change_where_only_its_outputs_are_bad() -> None:
    """Stripes near one size alone, on every replica."""
    plain, large = healthy(120, 3), healthy(40, 4, first=120, parameters="2048x2048 12 steps")
    facts = plain + moved(large, "row_stripes", 9.0)
    reference = {**REFERENCE, stratum_of(large[0]): REFERENCE[stratum_of(plain[0])]}
    told = diagnose(facts, reference, [stratum_of(item) for item in facts])
    assert told.contrast is not None
    assert (told.contrast.dimension, told.contrast.value) == ("parameters", "2048x2048 12 steps")
    assert told.named[0].row == 37


@pytest.mark.parametrize(("check", "row"), [("black", 1), ("frozen", 40), ("silent", 42), ("count", 35)])
def test_a_failed_contract_names_its_row(check: str, row: int) -> None:
    """With the replica that breaks, and healthy peers."""
    facts = broken(healthy(90, 3), "a", check)
    told = diagnose(facts, REFERENCE, [stratum_of(item) for item in facts], check)
    assert told.named[0].row == row
    assert told.bad == frozenset("a")
    assert told.contrast is not None
    assert told.contrast.value == "a"


@given(st.integers(0, 10_000))
def test_chance_explains_nothing(seed: int) -> None:
    """On healthy outputs no value is named, but for one time in a thousand: never in these."""
    facts = healthy(60, seed)
    found = contrast_of(facts, np.random.default_rng(seed).standard_normal(60))
    assert found is None or found.sigmas < 6


def test_every_signature_is_of_features_that_are_measured() -> None:
    """A feature that is renamed must be renamed there too."""
    known = {"image": set(PICTURE_FEATURES), "video": set(FILM_FEATURES), "audio": set(SOUND_FEATURES)}
    for failure in catalogue.FAILURES:
        for kind, signatures in failure.signatures.items():
            for signature in signatures:
                assert {name.removeprefix(catalogue.EITHER) for name in signature} <= known[kind]


def test_every_contract_speaks_for_a_row_that_has_a_name() -> None:
    """Each check of outputs leads somewhere."""
    assert set(catalogue.BY_CHECK) == set(OutputCheck)
    assert all(catalogue.name_of(row) for rows in catalogue.BY_CHECK.values() for row in rows)


def clustered(count: int, seed: int, cluster: int, by: float, prompt: int = 0) -> list[OutputFact]:
    """Return outputs of one cluster of prompts, moved."""
    facts = healthy(count, seed, cluster=cluster)
    return moved([msgspec.structs.replace(item, prompt=prompt or item.prompt) for item in facts], "red_green", by)


@pytest.mark.parametrize(("prompt", "mix"), [(0, True), (77, False)], ids=["strange prompts", "a prompt that is known"])
def test_one_cluster_that_moves_is_another_mix_where_its_prompts_are_strange(prompt: int, mix: bool) -> None:
    """Other prompts of a cluster draw other things; a prompt that the reference knows by itself has changed."""
    known = Reference()
    for item in [*clustered(60, 1, 0, 0.0, prompt=77), *clustered(60, 2, 1, 0.0), *clustered(60, 3, 2, 0.0)]:
        known.rows.setdefault(stratum_of(item), []).append(list(item.features))
        known.prompts.setdefault(stratum_of(item), []).append(item.prompt)
    reference = known.strata()
    facts = [*clustered(60, 4, 0, 8.0, prompt=prompt), *clustered(60, 5, 1, 0.0), *clustered(60, 6, 2, 0.0)]
    told = diagnose(facts, reference, [stratum_in(item, reference) for item in facts])
    assert told.contrast is not None
    assert (told.contrast.dimension, told.contrast.value) == ("cluster", "0")
    assert ([item.row for item in told.named] == [catalogue.PROMPT_MIX]) is mix
