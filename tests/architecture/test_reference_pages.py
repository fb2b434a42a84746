"""Generated reference pages say what their sources say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_pages_are_what_their_sources_say() -> None:
    """`make docs` would change nothing."""
    command = [sys.executable, str(ROOT / "tools/write_reference.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr
