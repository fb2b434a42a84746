"""Which devices a worker owns, and which of them each of its replicas gets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_devices import identity_of

from forestay.worker.device_sharing import decide_devices, owned_by

EIGHT = [identity_of(index) for index in range(8)]


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, range(8)),
        ("2,0", [2, 0]),
        ("", []),
        (" 1 , 3 ", [1, 3]),
        ("1,9,2", [1]),
        ("1,1", []),
        ("-1", []),
        ("NoDevFiles", []),
        (EIGHT[5].uuid, [5]),
        ("GPU-00000003,GPU-00000004", [3, 4]),
        ("GPU-0", []),
        ("MIG-1", []),
    ],
)
def test_a_worker_owns_what_its_environment_leaves_it_in_cudas_own_reading(
    visible: str | None, indices: list[int]
) -> None:
    """Numbers, UUIDs and their beginnings; the first name that is unknown or means several ends the list."""
    assert [item.index for item in owned_by("gpu", EIGHT, visible)] == list(indices)


def test_a_worker_of_a_cpu_pool_owns_no_device() -> None:
    """Its slots are processors, whatever else the machine has."""
    assert owned_by("cpu", EIGHT, None) == []


def test_eight_replicas_on_eight_devices_get_one_each_and_two_on_one_share_it() -> None:
    """Each new replica goes where the fewest are; where slots outnumber devices, they are shared out evenly."""
    used: Counter[str] = Counter()
    for _ in range(8):
        used.update(decide_devices(EIGHT, used, 1))
    assert set(used.values()) == {1}
    assert len(used) == 8
    assert decide_devices(EIGHT[:1], {EIGHT[0].uuid: 1}, 1) == (EIGHT[0].uuid,)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 9))
def test_a_replica_gets_as_many_distinct_devices_as_it_takes_and_never_a_fuller_one(
    loads: list[int], wanted: int
) -> None:
    """As many as it wants, as far as there are any; none that is left out has fewer replicas than one that is given."""
    owned = EIGHT[: len(loads)]
    used = {item.uuid: load for item, load in zip(owned, loads, strict=True)}
    given_out = decide_devices(owned, used, wanted)
    assert len(set(given_out)) == len(given_out) == min(wanted, len(owned))
    left = [used[item.uuid] for item in owned if item.uuid not in given_out]
    assert not given_out or not left or max(used[uuid] for uuid in given_out) <= min(left)
