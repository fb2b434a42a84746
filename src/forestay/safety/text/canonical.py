"""What a text says once its disguise is off. Pure, bounded, and the same when done twice.

`views` gives the text as it came and as it reads: invisible characters dropped, look-alikes and dressed-up letters as
ASCII, smuggled tag characters and variation selectors decoded, spaced letters joined, digits read as letters, swapped
and repeated letters mended, reversed or encoded text turned back. Detectors score both. A word wholly of one other
script is left alone, and so are marks of scripts that need them. What is undone is named, which is a signal of its own.
Sources: Unicode UAX #15 (NFKC), UTS #39 (confusables), UTS #51 (keycaps, flags, tag sequences). Decides no harm.
Called by `detector` and by whoever shows a reviewer what a text says.
"""

import base64
import binascii
import codecs
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable

from forestay.safety.text import words
from forestay.safety.text.letters import is_picture, script, stands_for, takes_stacks

MAX_CHARS = 20_000  # of a text that are looked at; whoever has more judges it in parts
LONGEST_TOKEN = 40
ROUNDS = 4  # disguises inside disguises
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_TAGS = re.compile(r"[\U000e0000-\U000e007f]+")
_FLAG = re.compile(r"\U0001f3f4[\U000e0030-\U000e007a]{2,6}\U000e007f")
_SELECTORS = re.compile(r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_INDICATORS = re.compile(r"[\U0001f1e6-\U0001f1ff]+")
_OVERRIDE = re.compile("\u202e([^\u202c\u202d\u2066-\u2069\n]*)[\u202c\u202d]?")
_BLANK = {
    "\u115f": "",
    "\u1160": "",
    "\u3164": "",
    "\uffa0": "",
    "\u2800": " ",
    "\u034f": "",
    "\u00ad": "",
    "\u180e": "",
}
_ODD = re.compile(r"[^\x00-\x7f]")
_ODD_RUN = re.compile(r"[^\x00-\x7f]+")
_TOKENS = re.compile(r"\S+")
_EDGES = re.compile(r"^([^\w@$!|+(<]*)(.*?)([^\w@$+]*)$", re.DOTALL)
_LETTER = r"[^\W\d_]"
_SIGN = r"[\w@$!|+(<*#&?]"
_GAP = r"([ ]{1,2}|[ ]?[.\-_*\u00b7\u2022|/\\,~+:=][ ]?)"
_SPACED = re.compile(
    rf"(?<![\w@$!|+(<*#&?])(?<!\w[.\-_*|/,~+:=]){_SIGN}(?:{_GAP}(?!\s){_SIGN}(?:\1{_SIGN}){{1,200}})(?![\w@$|+(<*#&])(?![.\-_*|/,~+:=]\w)"
)
_PAIR = re.compile(r"(?<![\w.\-_*|/,~+:=])([a-z])(?:[ .\-_*|/,~+:=])([a-z])(?![\w\-_*|/~+=]|[.,:]\w)")
_WIDE = re.compile(r"[ ]{3,}")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[0-9@$!|+(<\[{#&^*%?_.~=/\\:;)\]}\-])", re.DOTALL)
_PLAIN = re.compile(r"[a-z]+(?:[-'/_.:,][a-z]+)*(?:'s|s'|n't|'ll|'re|'ve|'d|'m)?")
_AMONG = re.compile(r"[a-z][0-9@$!|+]+[a-z]")  # a digit that is no measure stands inside a word
_ADDRESS = re.compile(r"://|^www\.|\w@\w+\.\w")
_MEASURE = re.compile(
    r"\d+(?:[.,:/x]\d+)*[a-z]{1,4}|[a-z]{1,4}[-.]?\d+(?:[.,:x]\d+)*[a-z]?|\d+(?:st|nd|rd|th|s)|\d+[-x]\w+|\w+[-=:]\d+(?:\.\d+)?"
)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/_=-])")
_HEX = re.compile(
    r"(?<![0-9A-Za-z])(?:0x)?((?:[0-9A-Fa-f]{2}){8,}|[0-9A-Fa-f]{2}(?:[ :][0-9A-Fa-f]{2}){7,})(?![0-9A-Za-z])"
)
_WORD = re.compile(r"[a-z]{3,}")
FEW_WORDS = 3  # below that chance may make words of what is turned
_TURNS: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (("reversed",), lambda text: text[::-1]),
    (("rotated",), lambda text: codecs.decode(text, "rot13")),
    (("reversed", "rotated"), lambda text: codecs.decode(text[::-1], "rot13")),
)
_COUNTRIES = frozenset(
    re.findall(
        "..",
        "ACADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCPCRCUCVCWCXCYCZDEDGDJ"
        "DKDMDODZEAECEEEGEHERESETEUFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUICIDIEILIMINIOIQIRISITJEJMJOJPKEKG"
        "KHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNRNUNZOMPAPEPFPGPH"
        "PKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTATCTDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUNUSUYUZVA"
        "VCVEVGVIVNVUWFWSXKYEYTZAZMZW",
    )
)  # ISO 3166-1, as UTS #51 allows for flags


@dataclasses.dataclass(frozen=True, slots=True)
class Views:
    """A text as it came, as it reads, and what was undone in between."""

    raw: str
    folded: str  # lower case
    disguises: frozenset[str]


def views(text: str) -> Views:
    """Return both views of a text; of one above MAX_CHARS, its beginning. Never raises."""
    raw = _SURROGATES.sub("\ufffd", text[:MAX_CHARS])
    found: set[str] = set()
    folded = raw
    for _ in range(ROUNDS):
        before, folded = folded, _fold(folded, found)[:MAX_CHARS]
        if folded == before:
            break
    return Views(raw, folded, frozenset(found))


def _fold(text: str, found: set[str]) -> str:
    if not text.isascii():
        text = _unsmuggled(text, found)
        text = _undressed(text, found)
    text = _decoded(text, found)
    text = text.lower()
    text = _joined(text, found)
    text = _respelt(text, found)
    return _turned(text, found)


def _unsmuggled(text: str, found: set[str]) -> str:
    """Read text out of invisible characters, and drop those that say nothing."""
    text = _FLAG.sub("\U0001f3f4", text)
    text = _noted(_TAGS, _tags, text, found, "tags")
    text = _SELECTORS.sub(lambda match: _selected(match[0], found), text)
    text = _noted(_OVERRIDE, lambda match: match[1][::-1], text, found, "bidi")
    text = _indicated(text, found)
    return _ODD.sub(lambda match: _visible(match, found), text)


def _visible(match: re.Match[str], found: set[str]) -> str:
    character = match[0]
    if character not in _BLANK and unicodedata.category(character) != "Cf":
        return character
    if _joins(match.string, match.start()):
        return character
    found.add("invisible")
    return _BLANK.get(character, "")


def _tags(match: re.Match[str]) -> str:
    letters = (ord(character) - 0xE0000 for character in match[0])
    return "".join(chr(letter) for letter in letters if 32 <= letter < 127)


def _selected(run: str, found: set[str]) -> str:
    """Return the text that a run of variation selectors encodes, one byte each; a short run only chooses a glyph."""
    if len(run) < 3:
        return ""
    found.add("selectors")
    points = (ord(character) for character in run)
    data = bytes(point - 0xFE00 if point < 0xE0100 else point - 0xE0100 + 16 for point in points)
    text = data.decode("utf-8", "ignore")
    return f" {text} " if text.isprintable() else ""


def _indicated(text: str, found: set[str]) -> str:
    """Read regional indicators as letters, unless every run of them in the text is made of flags of countries."""
    runs = _INDICATORS.findall(text)
    if not runs:
        return text
    if all(_flags(run) for run in runs):
        return _INDICATORS.sub(" ", text)
    found.add("emoji")
    return _INDICATORS.sub(lambda match: _letters(match[0]).lower(), text)


def _letters(run: str) -> str:
    return "".join(chr(ord(character) - 0x1F1E6 + 65) for character in run)


def _flags(run: str) -> bool:
    letters = _letters(run)
    return len(letters) % 2 == 0 and all(letters[at : at + 2] in _COUNTRIES for at in range(0, len(letters), 2))


def _joins(text: str, at: int) -> bool:
    """Return whether an invisible joiner does its work: between letters of a script that needs it, or emoji."""
    if text[at] not in "\u200c\u200d" or at in {0, len(text) - 1}:
        return False
    before, after = text[at - 1], text[at + 1]
    if before.isascii() or after.isascii():
        return False
    if unicodedata.category(after) == "So":  # a family, a profession: pictures joined to one
        return unicodedata.category(before) in {"So", "Sk", "Mn"}
    return not takes_stacks(after) and (not takes_stacks(before) or unicodedata.category(before) in {"Mn", "Mc"})


def _undressed(text: str, found: set[str]) -> str:
    """Return text with stacked marks dropped, and look-alikes as ASCII where they pretend to be Latin."""
    text = unicodedata.normalize("NFC", text)
    text = _unmarked(text, found)
    normal = unicodedata.normalize("NFKC", text)
    if normal != text and any(stands_for(character).isalnum() for character in set(text) - set(normal)):
        found.add("letterforms")
    text = normal
    if text.isascii():
        return text
    latin = sum(character.isascii() and character.isalpha() for character in text)
    foreign = sum(not character.isascii() and character.isalpha() for character in text)
    return _TOKENS.sub(lambda match: _latin(match[0], latin >= foreign, found), text)


def _unmarked(text: str, found: set[str]) -> str:
    return _ODD_RUN.sub(lambda match: _bare(match, found), text)


def _bare(match: re.Match[str], found: set[str]) -> str:
    """Return a run of characters without the marks stacked on it or on the ASCII letter before it."""
    base = match.string[match.start() - 1] if match.start() else " "
    kept: list[str] = []
    for character in match[0]:
        if unicodedata.category(character) not in {"Mn", "Me"}:
            base = character
        elif takes_stacks(base):
            found.add("marks")
            continue
        kept.append(character)
    return "".join(kept)


def _latin(token: str, mostly_latin: bool, found: set[str]) -> str:
    """Return a token as ASCII where it pretends to be Latin: scripts mixed in it, or a look-alike among Latin words."""
    if token.isascii():
        return token
    scripts = {script(character) for character in token} - {""}
    foreign = scripts - {"LATIN"}
    drawn = any(
        not character.isalpha() and stands_for(character).isalpha() for character in token if not character.isascii()
    )
    if not scripts and (not drawn or is_picture(token)):
        return token
    if len(scripts) == 1 and foreign and not drawn:  # a word of one other script, or one made of look-alikes alone
        alike = all(stands_for(character) for character in token if character.isalpha())
        if not mostly_latin or not alike:
            return token
    folded = "".join(stands_for(character) or character for character in token)
    if folded == token:
        return token
    if foreign or _made_up(token):
        found.add("lookalikes")
    if drawn:
        found.add("emoji")
    return folded


def _made_up(token: str) -> bool:
    """Return whether a token has a Latin letter that is neither ASCII nor an ASCII letter with an accent."""
    return any(script(one) == "LATIN" and not unicodedata.decomposition(one) for one in token if not one.isascii())


def _decoded(text: str, found: set[str]) -> str:
    """Put what base64 and hexadecimal tokens say in their place, when it is text."""
    if len(text) >= 16:
        text = _BASE64.sub(lambda match: _opened(match[0], _from_base64, found), text)
        text = _HEX.sub(lambda match: _opened(match[0], _from_hex, found), text)
    return text


def _opened(token: str, decode: Callable[[str], bytes], found: set[str]) -> str:
    try:
        plain = decode(token).decode("utf-8")
    except (binascii.Error, ValueError):
        return token
    letters = _WORD.findall(plain.lower())
    if not plain.isprintable() or sum(map(len, letters)) < 0.6 * len(plain) or not any(map(words.known, letters)):
        return token
    found.add("encoded")
    return f" {plain} "


def _from_base64(token: str) -> bytes:
    bare = token.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _from_hex(token: str) -> bytes:
    return bytes.fromhex(token.removeprefix("0x").replace(":", " "))


def _joined(text: str, found: set[str]) -> str:
    """Join letters that stand apart, and split what is then joined into words."""

    def join(match: re.Match[str]) -> str:
        gap = match[1]
        letters = match[0].replace(gap, "") if gap else match[0]
        if sum(character.isalpha() for character in letters) < 3 or letters.isdigit():
            return match[0]
        read = letters if letters.isalpha() else words.read(letters) or words.literal(letters)
        if len(letters) > 3:
            found.add("spaced")
        return read if words.known(read) else words.split(read)

    if not _SPACED.search(text):
        return text
    parts = [_SPACED.sub(join, part) for part in _WIDE.split(text)]
    if "spaced" in found:  # words of two letters, which alone would prove nothing
        parts = [
            _PAIR.sub(lambda pair: pair[1] + pair[2] if words.known(pair[1] + pair[2]) else pair[0], part)
            for part in parts
        ]
    return " ".join(parts)


def _respelt(text: str, found: set[str]) -> str:
    """Read digits as letters and mend spellings, word by word; where much is so written, short words too."""
    for _ in range(2):
        strict = "digits" not in found
        text = _TOKENS.sub(functools.partial(_word, found=found, strict=strict), text)
        if not strict or "digits" not in found:
            return text
    return text


def _word(match: re.Match[str], *, found: set[str], strict: bool) -> str:
    token = match[0]
    if not token.isascii() or len(token) > LONGEST_TOKEN or _ADDRESS.search(token):
        return token
    if _PLAIN.fullmatch(token):
        return token if not token.isalpha() or words.known(token) else _mended(token, found)
    parts = _EDGES.match(token)
    head, body, tail = (parts[1], parts[2], parts[3]) if parts else ("", token, "")
    if body.isalpha():
        return token if words.known(body) else head + _mended(body, found) + tail
    if strict and (not _MIXED.match(body) or _MEASURE.fullmatch(body)):
        return token
    return _read(head, body, tail, found)


def _read(head: str, body: str, tail: str, found: set[str]) -> str:
    for signs in (tail, ""):  # "kil!" may end in a letter
        word = words.read(body + signs)
        if word is not None and word != body:
            found.add("digits")
            return head + word + ("" if signs else tail)
    if _AMONG.search(body) and sum(map(str.isalpha, body)) >= 2:
        found.add("digits")
        return head + words.literal(body) + tail
    return head + body + tail


def _mended(word: str, found: set[str]) -> str:
    better = words.mended(word)
    if better is None:
        return word
    found.add("typo")
    return better


def _turned(text: str, found: set[str]) -> str:
    """Turn back text that is written backwards or shifted by 13 letters, when that makes words of it."""
    if len(_WORD.findall(text)) < FEW_WORDS:
        return text
    plain = words.share(text)
    if plain > 0.5:
        return text
    for names, turn in _TURNS:
        other = turn(text)
        if words.share(other) > max(0.6, plain + 0.3):
            found.update(names)
            return other
    return text


def _noted(
    pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str, found: set[str], name: str
) -> str:
    done, count = pattern.subn(replace, text)
    if count:
        found.add(name)
    return done
