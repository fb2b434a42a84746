"""What the safety scenario is made of holds together: its policy, its disguises, its pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from forestay.demo import gallery
from forestay.demo.promises import SAFETY
from forestay.demo.screenings import SCREENINGS
from forestay.safety.classifiers.marker import find
from forestay.safety.hashes.pdq import LEAST_QUALITY, distance, hash_of
from forestay.safety.hashes.segment import MAX_RADIUS
from forestay.safety.model import Picture
from forestay.safety.policy import Action
from forestay.safety.policy_file import read_policy
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.canonical import views


@pytest.mark.parametrize(("block_at", "at_half"), [(gallery.BLOCK_AT, Action.ALLOW), (gallery.STRICT_AT, Action.BLOCK)])
def test_the_edited_policy_is_stricter_about_text_alone(block_at: float, at_half: Action) -> None:
    """The edits of the standard policy reach what they are meant for, whatever else changes in it."""
    policy = read_policy(gallery.policy_text(block_at), gallery.POLICY, 1)
    [text] = policy.rules_for(Modality.TEXT)
    assert text.action_at(0.3)[0] is at_half
    assert {fallback.detector_id for fallback in text.on.values()} >= {"text-lexicon@1"}
    for rule in policy.rules_for(Modality.IMAGE):
        assert {"nsfw@1", "marker@1", "hash-pdq@1"} <= set(rule.detectors)
        assert rule.action_at(0.3)[0] is Action.ALLOW
    assert policy.provenance == {"manifest", "fingerprint"}


def test_the_disguises_are_at_least_six_and_differ_from_the_plain_text() -> None:
    """Each is another string, and folds back to nearly the same letters."""
    disguised = gallery.disguises(gallery.HARMFUL)
    assert len(disguised) >= 6
    assert gallery.HARMFUL not in disguised.values()
    for text in disguised.values():
        assert "bomb" in views(text).folded.replace(" ", "")


def test_the_marker_is_found_and_the_known_picture_has_none() -> None:
    """One stands for unsafe content, the other for none."""
    assert find(gallery.marker()) == {Category.SEXUAL}
    assert not find(gallery.known_picture())


def test_the_known_picture_is_recognised_scaled_and_coded_anew() -> None:
    """As the demonstration sends it."""
    known = gallery.known_hash()
    assert known.quality >= LEAST_QUALITY
    image = Image.open(io.BytesIO(gallery.encoded(gallery.known_picture(), "JPEG", 200))).convert("RGB")
    again = hash_of(np.asarray(image))
    assert distance(known.value, again.value) <= MAX_RADIUS


def test_a_picture_survives_its_own_encoding() -> None:
    """A PNG of it holds the same pixels."""
    picture = gallery.known_picture()
    image = Image.open(io.BytesIO(gallery.encoded(picture, "PNG")))
    assert Picture("known", image.width, image.height, image.tobytes()) == picture


def test_every_screening_is_a_promise() -> None:
    """No screening lacks its line in the table, and what is in the table beside them is the course's own."""
    names = [name for name, _ in SCREENINGS]
    assert len(names) == len(set(names))
    assert set(SAFETY) - set(names) == {"start", "unjudged", "stop"}
    assert set(names) <= set(SAFETY)
