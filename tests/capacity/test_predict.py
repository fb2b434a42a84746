"""Predicting a cost: from the spec when cold, learned from facts, with an interval that holds."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.capacity.features import FEATURES
from forestay.capacity.predict import (
    LEAST_SECONDS,
    MOST_SECONDS,
    CostModel,
    cold_model,
    inherited_model,
    model_from_json,
    model_to_json,
    predictor_from_json,
)
from forestay.capacity.regress import Observation, learn
from forestay.chance import SeededChance

USUAL = {"steps": 28.0, "pixels": 1024.0 * 1024.0, "images": 1.0}
Truth = Callable[[Mapping[str, float], int, SeededChance], float]


def noise(chance: SeededChance, spread: float) -> float:
    """A log-normal factor of median 1, by the sum of twelve uniforms."""
    return math.exp(spread * (sum(chance.uniform(0, 1) for _ in range(12)) - 6.0))


def diffusion(features: Mapping[str, float], _: int, chance: SeededChance) -> float:
    """A picture's cost: encoding and loading, then steps over pixels; a fifth of noise."""
    work = features["steps"] / 28 * (features["pixels"] / 1024**2) ** 1.2 * features["images"]
    return (0.8 + 3.0 * work) * noise(chance, 0.2)


def slower_half_way(features: Mapping[str, float], number: int, chance: SeededChance) -> float:
    """The same on hardware that becomes two and a half times slower after 1,500 requests."""
    return diffusion(features, number, chance) * (2.5 if number > 1500 else 1.0)


def now_and_then_stuck(features: Mapping[str, float], number: int, chance: SeededChance) -> float:
    """The same, but every fortieth takes thirty times as long."""
    return diffusion(features, number, chance) * (30.0 if number % 40 == 7 else 1.0)


def asked(chance: SeededChance) -> dict[str, float]:
    """What a caller may ask for."""
    side = [512.0, 768.0, 1024.0, 1536.0][int(chance.uniform(0, 4))]
    steps = [4.0, 20.0, 28.0, 50.0][int(chance.uniform(0, 4))]
    return {"steps": steps, "pixels": side * side, "images": 1.0 + int(chance.uniform(0, 4))}


def taught(truth: Truth, count: int, seed: int = 1) -> tuple[CostModel, list[tuple[float, float, float, float]]]:
    """Teach a cold model; returns it with (expected, low, high, used) as predicted before each fact."""
    chance = SeededChance(seed)
    model, seen = cold_model(USUAL, 4.0, ()), list[tuple[float, float, float, float]]()
    for number in range(count):
        features = asked(chance)
        predicted, used = model.predictor.predict(features), truth(features, number, chance)
        seen.append((predicted.seconds, predicted.low, predicted.high, used))
        model = learn(model, [Observation(features, used)])
    return model, seen


def test_a_cold_model_starts_from_the_spec() -> None:
    """The typical cost for the usual request, in proportion for a larger one; without a word, a second, widely."""
    predictor = cold_model({"steps": 28.0, "images": 1.0}, 4.0, ("steps", "images")).predictor
    assert predictor.seconds(USUAL) == pytest.approx(4.0)
    assert predictor.seconds({**USUAL, "steps": 56.0, "images": 2.0}) == pytest.approx(16.0)
    assert predictor.seconds({**USUAL, "pixels": 4.0 * 1024**2}) == pytest.approx(4.0)
    unsaid = cold_model({}, None, ()).predictor.predict({})
    assert unsaid.seconds == pytest.approx(1.0)
    assert unsaid.high / unsaid.low > 100
    assert "no word" in unsaid.source


def test_it_learns_what_requests_cost() -> None:
    """After some hundred facts a heavy and a light request are each predicted within a quarter."""
    model, _ = taught(diffusion, 400)
    quiet = SeededChance(0)
    for features in (USUAL, {"steps": 50.0, "pixels": 1536.0**2, "images": 4.0}, {**USUAL, "steps": 4.0}):
        true = sum(diffusion(features, 0, quiet) for _ in range(300)) / 300
        assert model.predictor.seconds(features) == pytest.approx(true, rel=0.25)
    assert "400 requests" in model.predictor.source


@pytest.mark.parametrize("truth", [diffusion, slower_half_way, now_and_then_stuck])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nine_in_ten_lie_in_the_interval_even_while_costs_change(truth: Truth, seed: int) -> None:
    """Over the whole life, the cold start included; the interval is not bought by being boundless."""
    _, seen = taught(truth, 3000, seed)
    held = sum(low <= used <= high for _, low, high, used in seen)
    assert held / len(seen) >= 0.9
    widths = sorted(high / low for _, low, high, _ in seen[100:])
    assert widths[len(widths) // 2] < 4.0


@pytest.mark.parametrize("truth", [diffusion, slower_half_way])
def test_predictions_add_up_to_what_was_used(truth: Truth) -> None:
    """Fairness, limits and admission count sums: those are right within a twentieth."""
    _, seen = taught(truth, 3000)
    assert sum(row[0] for row in seen) == pytest.approx(sum(row[3] for row in seen), rel=0.05)


def test_a_few_absurd_facts_move_little() -> None:
    """Twenty of four hundred that took a hundred times as long change a prediction by less than a third."""
    model, _ = taught(diffusion, 400)
    before = model.predictor.seconds(USUAL)
    chance = SeededChance(9)
    facts = [Observation(USUAL, 4.0 * noise(chance, 0.2) * (100.0 if n % 20 == 0 else 1.0)) for n in range(400)]
    assert learn(model, facts).predictor.seconds(USUAL) == pytest.approx(before, rel=0.33)


def test_a_new_revision_begins_with_what_the_former_one_cost() -> None:
    """And is taught otherwise by a few dozen facts of its own."""
    former, _ = taught(diffusion, 400)
    model = inherited_model(former, "pictures-0001")
    assert model.predictor.seconds(USUAL) == pytest.approx(former.predictor.seconds(USUAL))
    assert "pictures-0001" in model.predictor.source
    chance = SeededChance(3)
    half = [(features := asked(chance), diffusion(features, 0, chance) / 2.0) for _ in range(60)]
    model = learn(model, [Observation(features, used) for features, used in half])
    assert model.predictor.seconds(USUAL) == pytest.approx(former.predictor.seconds(USUAL) / 2.0, rel=0.3)


def test_facts_that_count_less_teach_less() -> None:
    """A tenant whose facts are weighed down moves the model less than the others' do."""
    model, _ = taught(diffusion, 200)
    facts = [Observation(USUAL, 40.0, weight) for weight in (1.0,) * 60]
    light = [dataclasses.replace(item, weight=0.05) for item in facts]
    assert learn(model, light).predictor.seconds(USUAL) < learn(model, facts).predictor.seconds(USUAL) / 2.0


amounts = st.fixed_dictionaries(
    {name: st.floats(FEATURES[name].least, FEATURES[name].most) for name in ("steps", "pixels", "frames", "loras")}
)
costs = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.001, 1000.0)


@given(st.lists(st.tuples(amounts, costs, st.floats(0.01, 1.0)), max_size=30), amounts, st.data())
def test_more_work_never_costs_less(
    facts: list[tuple[dict[str, float], float, float]], features: dict[str, float], data: st.DataObject
) -> None:
    """Whatever was learned, from whatever facts: predictions are positive, finite, within their interval, monotone."""
    model = learn(cold_model({"steps": 28.0}, 4.0, ()), [Observation(*fact) for fact in facts])
    name = data.draw(st.sampled_from(sorted(features)))
    more = {**features, name: data.draw(st.floats(features[name], FEATURES[name].most))}
    predicted = model.predictor.predict(features)
    assert LEAST_SECONDS <= predicted.low <= predicted.seconds <= predicted.high <= MOST_SECONDS
    assert model.predictor.seconds(more) >= predicted.seconds


@given(st.lists(st.tuples(amounts, st.floats(0.001, 1000.0)), max_size=20), amounts)
def test_a_stored_model_predicts_and_learns_on_as_before(
    facts: list[tuple[dict[str, float], float]], features: dict[str, float]
) -> None:
    """Through JSON and back nothing changes; a broken or foreign one is not taken for a model."""
    model = learn(cold_model(USUAL, None, ()), [Observation(*fact) for fact in facts])
    stored = json.loads(json.dumps(model_to_json(model)))
    assert model_from_json(stored["model"]) == model
    predictor = predictor_from_json(stored["predictor"])
    assert predictor is not None
    assert predictor.predict(features) == model.predictor.predict(features)
    assert model_from_json({**stored["model"], "version": 0}) is None
    assert model_from_json({"names": 3}) is None
    assert predictor_from_json([]) is None
