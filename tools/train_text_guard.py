"""`python tools/train_text_guard.py FOLDER [--into FOLDER]`: teach the text detector from the prompt sets in FOLDER.

Writes `weights.npz` and its card `weights.json` (digest, settings, what it was taught on) beside the detector's code.
The same rows give the same digest on the same versions of numpy and scipy. Takes a quarter of an hour on one core, most
of it for embeddings, which are kept in the temporary folder. Needs the extras `safety` and `train`.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from tools.text_guard.features import matrix_of
from tools.text_guard.fit import CATEGORY_BUCKETS, RECIPES, Teacher
from tools.text_guard.rows import SETS, read_rows

from forestay.safety.text.detector import MAX_WINDOWS
from forestay.safety.text.grams import BUCKETS
from forestay.safety.text.model import WINDOW_TOKENS, save
from forestay.sentences import MODEL_SHA256

HOME = pathlib.Path(__file__).resolve().parent.parent / "src/forestay/safety/text/data"


def main() -> None:
    """Read, teach, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="holds the prompt sets, each a CSV.gz")
    parser.add_argument("--into", type=pathlib.Path, default=HOME, metavar="FOLDER", help="where weights go")
    asked = parser.parse_args()
    rows = read_rows(asked.folder)
    teacher = Teacher(rows, matrix_of([row.text for row in rows]))
    print(f"teaching from {len(rows):,} rows", flush=True)
    weights = teacher.fit(np.arange(len(rows)))
    data = save(weights)
    card = {
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "categories": [str(category) for category in weights.categories],
        "settings": {
            "buckets": BUCKETS,
            "category_buckets": CATEGORY_BUCKETS,
            "window_tokens": WINDOW_TOKENS,
            "max_windows": MAX_WINDOWS,
            "embedding_model": f"sha256:{MODEL_SHA256}",
            "flagged_at_operating_point": {str(register): dict(one.flagged) for register, one in RECIPES.items()},
        },
        "taught_on": {kind.file: kept for kind, kept in _counted(rows)},
    }
    (asked.into / "weights.npz").write_bytes(data)
    (asked.into / "weights.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {len(data):,} bytes, {card['digest']}")


def _counted(rows: list) -> list:
    number = collections.Counter(row.source for row in rows if row.harmful is not None)
    return [(SETS[name], number[name]) for name in SETS]


if __name__ == "__main__":
    main()
