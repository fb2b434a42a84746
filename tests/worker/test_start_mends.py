"""A start that failed for want of what the spec grants says which field grants it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec import HostKind, HostSpec
from forestay.worker.hosts.start_mends import with_mend

HOST = HostSpec(HostKind.FAL_APP, app="app.py::A")
DNS = "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("ModuleNotFoundError: No module named 'diffusers.utils'", "package of diffusers in host.requirements"),
        (DNS, "host.network: full lets it fetch"),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", "host.network: none"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/data/.fal'", "/data/.fal is not there"),
        ("PermissionError: [Errno 13] Permission denied: '/data'", "host.data_mounts"),
    ],
)
def test_the_field_stands_behind_the_models_own_words(words: str, field: str) -> None:
    """Nothing of what it said is lost."""
    told = with_mend(words, HOST)
    assert told.startswith(words)
    assert field in told


def test_what_was_granted_is_not_proposed() -> None:
    """A model with the network is told nothing of it, nor one with the folder."""
    granted = dataclasses.replace(HOST, network="full", data_mounts=("/srv/weights:/data",))
    assert with_mend(DNS, granted) == DNS
    assert with_mend("FileNotFoundError: '/data/x'", granted) == "FileNotFoundError: '/data/x'"


@given(st.text(max_size=300))
def test_other_words_stay_as_they_are(words: str) -> None:
    """A mend is only given for a cause that is named."""
    told = with_mend(words, HOST)
    assert told == words or told.startswith(f"{words}\n")
    assert with_mend("RuntimeError: a bug", HOST) == "RuntimeError: a bug"
