"""The watch over a model's processes: it must outlast every process that it sees."""

import os
import signal
import subprocess

from forestay.worker.hosts.child import processes_of

LOOKS = 3000


def test_processes_that_end_while_they_are_counted_do_not_end_the_watch() -> None:
    """A model that starts and ends children all the time is counted at every look; a look that raises is the last."""
    churning = "while :; do /bin/true & /bin/true & /bin/true; done"
    with subprocess.Popen(["/bin/sh", "-c", churning], start_new_session=True) as shell:
        try:
            seen = [processes_of(shell.pid, None) for _ in range(LOOKS)]
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    assert all(found[0] == shell.pid for found in seen)
    assert any(len(found) > 1 for found in seen), "no child was ever seen: this test tested nothing"
