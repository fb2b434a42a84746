"""What is kept of an output: clusters and digests that tell nothing without the key."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec_quality import OutputCheck
from forestay.media.measures import PICTURE_FEATURES, Measured, PictureMeasures
from forestay.quality.contracts import File, Row, Standing
from forestay.quality.noting import CLUSTER_BITS, MAX_FEATURE, NAMES, cluster_of, digest, note_outputs

KEY, OTHER = b"k" * 32, b"o" * 32
PICTURE = PictureMeasures(64, 48, 0, 255, 255, 40.0, 0.0, 20.0, "00ff00ff00ff00ff", (1.0,) * len(PICTURE_FEATURES))
FILE = File("images[0].url", 0, Measured("image", "image/png", PICTURE), content=7)
SAID = {"prompt": "a red seven on a dark background", "seed": 42, "num_inference_steps": 12}


def test_a_picture_is_noted_with_its_stratum_and_digests() -> None:
    """Size, steps, cluster, and digests under the key; no word of the prompt."""
    (noted,) = note_outputs(SAID, [FILE], [], KEY)
    assert (noted.kind, noted.parameters, noted.content, noted.failed) == ("image", "64x48 12 steps", 7, "")
    assert 0 <= noted.cluster < 2**CLUSTER_BITS
    assert len(noted.features) == len(NAMES["image"])
    (other,) = note_outputs(SAID, [FILE], [], OTHER)
    assert {noted.prompt, noted.seed, noted.likeness}.isdisjoint({other.prompt, other.seed, other.likeness})
    assert "red" not in str(dataclasses.asdict(noted))


def test_the_same_words_and_seed_have_the_same_digests_and_others_do_not() -> None:
    """What duplicates are told by."""
    (one,), (same,) = (note_outputs(dict(SAID), [FILE], [], KEY) for _ in range(2))
    (reseeded,) = note_outputs({**SAID, "seed": 43}, [FILE], [], KEY)
    (reworded,) = note_outputs({**SAID, "prompt": "a blue two"}, [FILE], [], KEY)
    (unseeded,) = note_outputs({"prompt": SAID["prompt"]}, [FILE], [], KEY)
    assert one == same
    assert (reseeded.prompt == one.prompt, reseeded.seed == one.seed) == (True, False)
    assert reworded.prompt != one.prompt
    assert (unseeded.prompt, unseeded.seed) == (one.prompt, 0)


def test_a_failed_check_is_noted_with_its_file_and_one_of_the_answer_with_all() -> None:
    """The first that failed; what was filtered did not fail."""
    black = Row(OutputCheck.BLACK, FILE.where, Standing.FAILED, 0.0, 2.0, "black")
    count = Row(OutputCheck.COUNT, "", Standing.FAILED, 1.0, 2.0, "one")
    filtered = dataclasses.replace(black, standing=Standing.FILTERED)
    second = dataclasses.replace(FILE, where="images[1].url")
    assert [item.failed for item in note_outputs({}, [FILE, second], [black], KEY)] == ["black", ""]
    assert [item.failed for item in note_outputs({}, [FILE, second], [count], KEY)] == ["count", "count"]
    assert [item.failed for item in note_outputs({}, [FILE], [filtered], KEY)] == [""]


def test_what_does_not_open_and_what_is_no_number_is_noted_all_the_same() -> None:
    """No kind and no features; a feature that is none is as large as can be."""
    (closed,) = note_outputs({}, [File("", 0, None, "broken")], [], KEY)
    assert (closed.kind, closed.features, closed.likeness) == ("", (), 0)
    odd = dataclasses.replace(PICTURE, features=(float("nan"), float("inf"), *PICTURE.features[2:]))
    (noted,) = note_outputs({}, [dataclasses.replace(FILE, measured=Measured("image", "image/png", odd))], [], KEY)
    assert noted.features[:2] == (MAX_FEATURE, MAX_FEATURE)


@given(st.lists(st.text(max_size=12), max_size=30))
def test_a_cluster_is_one_of_few_and_does_not_mind_the_order(words: list[str]) -> None:
    """The same words in another order are the same prompt."""
    found = cluster_of(words, KEY)
    assert -1 <= found < 2**CLUSTER_BITS
    assert found == cluster_of(words[::-1], KEY)
    assert digest("x", KEY) > 0


def test_adapters_are_told_apart_and_inputs_without_a_prompt_have_clusters_too() -> None:
    """By a few bits of a digest; labels and numbers stand for words."""
    (plain,), (styled,) = (note_outputs({**SAID, **more}, [FILE], [], KEY) for more in ({}, {"loras": [{"path": "x"}]}))
    assert styled.parameters.startswith(f"{plain.parameters} adapters ")
    (label,) = note_outputs({"digit": 7, "seed": 1}, [FILE], [], KEY)
    assert label.cluster >= 0
    assert note_outputs([1], [FILE], [], KEY)[0].cluster == -1
