"""The language of a text, where it can be told; the detector covers English alone and says so."""

import pytest

from forestay.safety.text.canonical import views
from forestay.safety.text.language import covered, language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a small red house by the lake in the evening", "en"),
        ("ein kleines rotes Haus am See im Abendlicht, gemalt in \u00d6l", "de"),
        ("une petite maison rouge au bord du lac, le soir en \u00e9t\u00e9", "fr"),
        ("\u6e56\u306e\u307b\u3068\u308a\u306e\u8d64\u3044\u5c0f\u3055\u306a\u5bb6", "ja"),
        ("\ud638\uc218 \uc606\uc758 \uc791\uc740 \ube68\uac04 \uc9d1", "ko"),
        ("xq zvw", ""),
        ("12345 !!", ""),
        ("", ""),
    ],
)
def test_a_language_is_told_when_it_is_certain(text: str, language: str) -> None:
    """By its words, its script, or the identifier; short and odd strings have none."""
    pytest.importorskip("py3langid")
    assert language_of(views(text)) == language


def test_a_disguise_does_not_make_a_text_foreign() -> None:
    """Look-alikes of another script are read first."""
    assert language_of(views("a sm\u0430ll r\u0435d h\u043eus\u0435 by the l\u0430k\u0435")) == "en"


def test_only_english_and_the_unknown_are_covered() -> None:
    """A text told to be in another language is Trouble for whoever asks."""
    assert covered("en")
    assert covered("")
    assert not covered("de")
