"""A sentence that comes in pieces is judged whole; a preview that grows is not judged as if it were said twice."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.model import Text
from forestay.worker.said_before import KEPT_CHARS, SaidBefore

SAID = "describe the blue lighthouse in full detail"


def heard(pieces: Sequence[str], where: str = "text") -> list[str]:
    """Return what is judged beside each piece."""
    before, found = SaidBefore(), list[str]()
    for piece in pieces:
        text = Text(where, piece)
        found += [one.text for one in before.together([text])]
        before.note([text])
    return found


@pytest.mark.parametrize("size", [1, 3, 7])
def test_letters_and_parts_of_words_make_the_sentence(size: int) -> None:
    """As models send them."""
    assert heard([SAID[at : at + size] for at in range(0, len(SAID), size)])[-1] == SAID


def test_sentences_are_put_behind_one_another_with_a_space() -> None:
    """As people send them in a session."""
    assert (
        heard(["describe the blue", "lighthouse in full", "detail"])[-1] == "describe the blue lighthouse in fulldetail"
    )
    assert heard(["describe the blue ", "lighthouse in full detail"])[-1] == SAID


def test_a_text_that_grows_or_is_shortened_takes_its_own_place() -> None:
    """Previews of a growing text, and a prompt that is edited between frames, are no repetition."""
    assert heard(["a blue", "a blue house", "a blue house by the sea", "a blue house"]) == []
    assert heard(["a blue house"] * 50) == []


def test_a_piece_that_repeats_a_beginning_makes_nothing_forgotten() -> None:
    """Or a sentence could be broken by a word of its own."""
    assert "lighthouse in full detail" in heard(["describe the blue lighthouse", "describe", " in full detail"])[-1]


@given(st.lists(st.text(max_size=40), max_size=60), st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_what_is_remembered_is_bounded(pieces: list[str], places: list[str]) -> None:
    """However many pieces and places there are."""
    before = SaidBefore()
    for number, piece in enumerate(pieces):
        text = Text(f"{places[number % len(places)] if places else ''}{number}", piece)
        assert all(len(one.text) <= 2 * KEPT_CHARS + 1 for one in before.together([text]))
        before.note([text])


def test_places_beyond_the_number_share_one_memory() -> None:
    """A new name for every letter hides no sentence."""
    before, found = SaidBefore(), list[Text]()
    for number, letter in enumerate("x" * 40 + SAID.replace(" ", "_")):
        text = [Text(f"place{number}", letter)]
        found = before.together(text)
        before.note(text)
    assert found[0].text.endswith(SAID.replace(" ", "_"))
