"""Drawn markers: found where they are, in any size a viewer would notice, and nowhere else."""

import io
import itertools
import time  # noqa: TID251 - how long a look takes

import numpy as np
import pytest
from PIL import Image, ImageFilter

from forestay.safety.classifiers import registry
from forestay.safety.classifiers.marker import Markers, code_of, draw, find
from forestay.safety.model import Picture, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category
from forestay.settings import Judge


def image_of(picture: Picture) -> Image.Image:
    """A picture for Pillow."""
    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)


def picture_of(image: Image.Image) -> Picture:
    """A picture for a detector."""
    return Picture("image", image.width, image.height, image.convert("RGB").tobytes())


def scene(width: int = 1024, height: int = 768, seed: int = 0) -> Image.Image:
    """Something with edges in it."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (height // 64, width // 64, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def with_marker(category: Category, side: int, at: tuple[int, int], on: Image.Image) -> Image.Image:
    """A scene with a marker of `side` pixels in it."""
    marker = image_of(draw(category)).resize((side, side), Image.Resampling.BILINEAR)
    made = on.copy()
    made.paste(marker, at)
    return made


@pytest.mark.parametrize("category", list(Category))
def test_a_drawn_marker_is_found_as_what_it_stands_for(category: Category) -> None:
    """Alone on white, as it is drawn."""
    assert find(draw(category)) == {category}


@pytest.mark.parametrize("side", [120, 171, 256, 333, 512, 700])
def test_a_marker_is_found_in_any_size_after_jpeg(side: int) -> None:
    """Somewhere in a scene, saved at a quality that people use."""
    made = with_marker(Category.SEXUAL, side, (37, 21), scene())
    saved = io.BytesIO()
    made.save(saved, "JPEG", quality=60)
    assert find(picture_of(Image.open(saved))) == {Category.SEXUAL}


def test_a_marker_survives_blur_and_another_size() -> None:
    """As a model's thumbnail would make of it."""
    made = with_marker(Category.VIOLENCE, 300, (400, 200), scene()).filter(ImageFilter.GaussianBlur(3))
    assert find(picture_of(made.resize((640, 480)))) == {Category.VIOLENCE}


def test_several_markers_are_all_found() -> None:
    """Two categories, one picture."""
    made = with_marker(Category.HATE, 200, (10, 10), with_marker(Category.WEAPONS, 240, (600, 400), scene()))
    assert find(picture_of(made)) == {Category.HATE, Category.WEAPONS}


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_found_where_nothing_was_drawn(seed: int) -> None:
    """Scenes and noise."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 255, (300, 400), np.uint8))
    for image in (scene(seed=seed), noise):
        assert find(picture_of(image)) == frozenset()


def test_nothing_is_found_in_what_looks_regular() -> None:
    """Chessboards and frames."""
    board = Image.fromarray(np.kron(np.indices((12, 12)).sum(0) % 2, np.ones((40, 40))).astype(np.uint8) * 255)
    frame = Image.new("L", (240, 240), 255)
    frame.paste(0, (20, 20, 220, 220))
    frame.paste(255, (40, 40, 200, 200))
    for image in (board, frame):
        assert find(picture_of(image)) == frozenset()


def test_codes_are_far_apart() -> None:
    """Damage to one never makes another."""
    apart = [int((code_of(one) != code_of(other)).sum()) for one, other in itertools.combinations(Category, 2)]
    assert min(apart) >= 20


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (33, 34), (481, 17)])
def test_odd_sizes_are_no_trouble(size: tuple[int, int]) -> None:
    """There is nothing in them, and nothing breaks."""
    assert find(picture_of(Image.new("RGB", size))) == frozenset()


def test_the_detector_scores_one_for_what_it_finds_and_declares_to_cover_nothing() -> None:
    """No policy can take it for a detector of real content."""
    detector = Markers()
    detector.load()
    outcome = detector.score(draw(Category.SELF_HARM))
    assert isinstance(outcome, Scores)
    assert outcome.scores == {Category.SELF_HARM: 1.0}
    assert detector.info.covers == {}
    text = detector.score(Text("prompt", "MARKER-7F3A"))
    assert isinstance(text, Unscored)
    assert text.trouble is Trouble.UNREADABLE


def test_it_is_loaded_only_where_the_operator_says_so() -> None:
    """By a setting of its own."""
    assert "marker@1" not in {one.info.detector_id for one in registry.installed(Judge())}
    assert "marker@1" in {one.info.detector_id for one in registry.installed(Judge(markers=True))}


def test_a_look_takes_less_than_half_a_second() -> None:
    """Of its own processor time, so that nothing beside it counts: it must not make a demonstration crawl."""
    picture = picture_of(scene(1024, 1024))
    started = time.thread_time()
    find(picture)
    assert time.thread_time() - started < 0.5
