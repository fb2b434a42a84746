"""The frozen set of a scorer on disk: outputs whose scores are known, beside a digest of the scorer's own files.

It decides what is a valid set. `frozen/frozen.json` in the scorer's folder names its files; `forestay quality scorers
check --learn` writes it. Read by `worker/scoring` before a scorer's scores count. Blocks: call it in a thread.
"""

import hashlib
import pathlib
from collections.abc import Sequence

import msgspec

from forestay.quality.scorers.model import Described, FrozenItem, FrozenSet, Given, Item, Score

FOLDER, FILE = "frozen", "frozen.json"
MAX_ITEMS = 64
MAX_ITEM_BYTES = 16 * 1024 * 1024
MAX_FILES = 10_000
TOLERANCE = 0.001  # share of a measure's range, where the file names none
_CHUNK = 1024 * 1024


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    file: str
    prompt: str = ""
    scores: dict[str, float] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    items: list[_Item]
    digest: str = ""
    tolerance: float = TOLERANCE


class FrozenFault(Exception):
    """There is no frozen set, or it is none; the message says what to mend."""


def digest_of(folder: pathlib.Path) -> str:
    """Return the SHA-256 of every file of a scorer's folder and its name, but for the frozen scores and caches."""
    digest = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _counts(path, folder))
    if len(files) > MAX_FILES:
        raise FrozenFault(f"its folder holds {len(files)} files; at most {MAX_FILES}: put weights into `reads`")
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as source:
            while piece := source.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()


def read_frozen(folder: pathlib.Path, described: Described) -> FrozenSet:
    """Return a scorer's frozen set; FrozenFault where there is none that can be held against its scores."""
    file = _parsed(folder)
    if not file.digest:
        raise FrozenFault("its frozen set has no scores yet; run `forestay quality scorers check ID --learn`")
    return FrozenSet(file.digest, file.tolerance, tuple(_item(folder, item, described) for item in file.items))


def items_of(folder: pathlib.Path) -> list[FrozenItem]:
    """Return the outputs of a frozen set, whether their scores are known or not."""
    return [_item(folder, item, None) for item in _parsed(folder).items]


def write_frozen(folder: pathlib.Path, described: Described, scores: Sequence[Score]) -> str:
    """Write what a scorer says now as what it must say from now on; returns the digest of its files."""
    file = _parsed(folder)
    names = [item.name for item in described.measures]
    for item, score in zip(file.items, scores, strict=True):
        item.scores = dict(zip(names, score.values, strict=True)) if isinstance(score, Given) else None
    file.digest = digest_of(folder)
    encoded = msgspec.json.format(msgspec.json.encode(file), indent=2)
    (folder / FOLDER / FILE).write_bytes(encoded + b"\n")
    return file.digest


def _counts(path: pathlib.Path, folder: pathlib.Path) -> bool:
    parts = path.relative_to(folder).parts
    return "__pycache__" not in parts and parts != (FOLDER, FILE)


def _parsed(folder: pathlib.Path) -> _File:
    path = folder / FOLDER / FILE
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError:
        raise FrozenFault(f"it has no {FOLDER}/{FILE}: a judge that nobody watches gives no scores") from None
    except msgspec.DecodeError as error:
        raise FrozenFault(f"its {FOLDER}/{FILE} cannot be read: {error}") from None
    if not 1 <= len(file.items) <= MAX_ITEMS:
        raise FrozenFault(f"its frozen set has {len(file.items)} items; expected 1 to {MAX_ITEMS}")
    if not 0 <= file.tolerance <= 0.1:
        raise FrozenFault(f"the tolerance of its frozen set is {file.tolerance:g}; expected 0 to 0.1 of the range")
    return file


def _item(folder: pathlib.Path, item: _Item, described: Described | None) -> FrozenItem:
    path = folder / FOLDER / item.file
    if pathlib.PurePath(item.file).name != item.file or not path.is_file():
        raise FrozenFault(f"its frozen set names {item.file[:80]!r}, which is no file beside it")
    if path.stat().st_size > MAX_ITEM_BYTES:
        raise FrozenFault(f"frozen output {item.file} is larger than {MAX_ITEM_BYTES} bytes")
    scores: tuple[float, ...] | None = None
    if described is not None and item.scores is not None:
        names = [measure.name for measure in described.measures]
        if set(item.scores) != set(names):
            raise FrozenFault(f"frozen output {item.file} has other scores than {', '.join(names)}; learn it again")
        scores = tuple(item.scores[name] for name in names)
    return FrozenItem(item.file, Item(path.read_bytes(), item.prompt), scores)
