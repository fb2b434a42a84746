"""Which language a text is in, as far as that can be told, and which of them the text detector covers.

The detector's heads were taught and measured on English alone: that is the one language it covers. A text in another
language, told with confidence, is Trouble.LANGUAGE for whoever asks, never a low score. Short and mixed texts are told
by their script only. Uses py3langid where the extra `safety` is installed (Lui, Baldwin 2012, "langid.py").
Called by `detector`.
"""

import functools
import importlib.util
from typing import Any, cast

from forestay.safety.text import words
from forestay.safety.text.canonical import Views
from forestay.safety.text.letters import script

COVERED = frozenset({"en"})
ENOUGH_LETTERS = 24  # below this only the script tells
SURE = 0.95  # of py3langid's normalised probability
ENGLISH_SHARE = 0.6  # of a text's words that are English words: no need to ask further
MAX_CHARS = 1_000
_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "THAI": "th",
    "GREEK": "el",
    "HEBREW": "he",
    "CJK": "zh",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "TAMIL": "ta",
    "TELUGU": "te",
}
_ASK = ("CYRILLIC", "ARABIC", "DEVANAGARI", "BENGALI")  # scripts of several languages


def language_of(seen: Views) -> str:
    """Return the ISO 639-1 code of a text's language; empty when it is too short or uncertain."""
    text = seen.folded[:MAX_CHARS]
    scripts: dict[str, int] = {}
    for letter in text:
        if letter.isalpha():
            scripts[script(letter)] = scripts.get(script(letter), 0) + 1
    total = sum(scripts.values())
    if not total:
        return ""
    found = max(scripts, key=lambda name: scripts[name])
    if scripts[found] < 0.6 * total and found not in _SCRIPTS:
        return ""
    if found in _SCRIPTS:
        return "ja" if "HIRAGANA" in scripts else _SCRIPTS[found]
    if found == "LATIN" and words.share(text) >= ENGLISH_SHARE:
        return "en"
    return _asked(text) if total >= ENOUGH_LETTERS and (found == "LATIN" or found in _ASK) else ""


def covered(language: str) -> bool:
    """Return whether the detector may be believed: of English, and of texts whose language nobody can tell."""
    return not language or language in COVERED


def _asked(text: str) -> str:
    identifier = _identifier()
    if identifier is None:
        return ""
    code, sure = cast("tuple[str, float]", identifier.classify(text))
    return code if sure >= SURE else ""


@functools.cache
def _identifier() -> Any:
    if importlib.util.find_spec("py3langid") is None:
        return None
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - an extra

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # pyright: ignore[reportUnknownMemberType]
