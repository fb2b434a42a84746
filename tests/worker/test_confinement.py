"""How a model's process is confined, decided: what cannot be withheld is refused, never silently given."""

import dataclasses
import pathlib

from hypothesis import given
from hypothesis import strategies as st
from tests.worker.harness import spec_of

from forestay.fleet.spec import ResourceSpec
from forestay.worker.hosts.confinement import (
    FIRST_UID,
    Confinement,
    Machine,
    Places,
    Unconfinable,
    choose_cpus,
    decide_confinement,
    interpreter_folders,
    private_ancestors,
    shortfall,
)

PATHS = st.sampled_from(["/scratch/a", "/scratch/a/b", "/srv/m", "/srv/m/x", "/private/py", "/work/bundles/1"]).map(
    pathlib.Path
)
machines = st.builds(Machine, linux=st.booleans(), root=st.booleans(), network=st.booleans(), mounts=st.booleans())
places_ = st.builds(
    Places,
    needed=st.lists(PATHS, unique=True).map(tuple),
    own=st.lists(PATHS, unique=True).map(tuple),
    hidden=st.lists(PATHS, unique=True).map(tuple),
    private=st.lists(PATHS, unique=True).map(tuple),
    scratch=st.just((pathlib.Path("/scratch"),)),
)
NOWHERE = Places((), (), ())
FULL = Machine(linux=True, root=True, network=True, mounts=True)


def decide(
    machine: Machine, network: str, places: Places = NOWHERE, *, waived: bool = False
) -> Confinement | Unconfinable:
    """Decide for the probe's spec."""
    spec = spec_of(network=network, host=None)
    return decide_confinement(machine, spec, "probe-1/run", places, allow_unisolated=waived)


@given(machines, st.sampled_from(["none", "loopback", "full"]), places_, st.booleans())
def test_no_model_gets_more_network_than_it_asks_for_without_a_waiver(
    machine: Machine, network: str, places: Places, waived: bool
) -> None:
    """It gets what it asked for, or the operator has waived it, or it does not start."""
    decided = decide(machine, network, places, waived=waived)
    if isinstance(decided, Unconfinable):
        assert not machine.network
        assert network != "full"
        assert not waived
        assert "FORESTAY_ALLOW_UNISOLATED" in decided.reason
        return
    assert decided.network == network or (waived and not machine.network)
    assert (decided.uid is not None) == machine.root
    assert decided.user_namespace == (decided.network != "full" and not machine.root)


@given(machines, st.sampled_from(["none", "loopback", "full"]))
def test_what_refuses_a_model_is_what_the_machine_is_said_to_lack(machine: Machine, network: str) -> None:
    """Where nothing is lacking no model is refused; where one is, its reason holds the same words."""
    decided = decide(machine, network)
    lacking = shortfall(machine)
    if isinstance(decided, Unconfinable):
        assert lacking
        assert lacking in decided.reason
    if not lacking:
        assert isinstance(decided, Confinement)
        assert decided.mounts or not machine.root


@given(places_)
def test_what_is_needed_is_shown_and_what_is_not_is_covered(places: Places) -> None:
    """Each hidden folder lies under a cover; what is needed under one is shown, read-only unless it is its own."""
    decided = decide(FULL, "none", places)
    assert isinstance(decided, Confinement)
    covers = [pathlib.Path(folder) for folder, _, _ in decided.hide]
    shown = dict(decided.show)
    assert all(any(path.is_relative_to(cover) for cover in covers) for path in places.hidden)
    for path in (*places.needed, *places.own):
        if any(path.is_relative_to(cover) for cover in covers):
            assert shown[str(path)] == (path in places.own)
    assert not any(a != b and a.is_relative_to(b) for a in covers for b in covers)


def test_a_replica_has_a_user_of_its_own() -> None:
    """Another replica of the same revision is another user, and both are far above the machine's own."""
    spec = spec_of()
    users = [
        decide_confinement(FULL, spec, f"probe-1/{number}", NOWHERE, allow_unisolated=False) for number in range(100)
    ]
    uids = {item.uid for item in users if isinstance(item, Confinement)}
    assert len(uids) == 100
    assert all(uid is not None and uid >= FIRST_UID for uid in uids)


def test_limits_follow_the_spec_and_leave_address_space_alone() -> None:
    """Processes where they can be counted, data on processors only: CUDA reserves far more than it uses."""
    spec = dataclasses.replace(spec_of(), resources=ResourceSpec(pool="gpu-a100", processes=99))
    decided = decide_confinement(FULL, spec, "x", NOWHERE, allow_unisolated=False)
    assert isinstance(decided, Confinement)
    limits = dict(decided.limits)
    assert limits["processes"] == 99
    assert limits["core"] == 0
    assert "data_bytes" not in limits
    plain = decide_confinement(dataclasses.replace(FULL, root=False), spec_of(), "x", NOWHERE, allow_unisolated=False)
    assert isinstance(plain, Confinement)
    assert "processes" not in dict(plain.limits)
    assert "data_bytes" in dict(plain.limits)


@given(st.integers(0, 20), st.sets(st.integers(0, 63), min_size=1), st.integers(0, 10**9))
def test_a_model_gets_as_many_cores_as_it_asks_for(wanted: int, available: set[int], uid: int) -> None:
    """Of those that the worker has; all of them when it asks for none or for too many."""
    chosen = choose_cpus(wanted, sorted(available), uid)
    assert set(chosen) <= available
    assert len(chosen) == (wanted if 0 < wanted < len(available) else 0)


def test_the_folders_of_an_interpreter_follow_its_links(tmp_path: pathlib.Path) -> None:
    """A virtual environment, and what it grows from; a private folder on the way is found."""
    (tmp_path / "home" / "python" / "bin").mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    (tmp_path / "home" / "python" / "bin" / "python3").touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(tmp_path / "home" / "python" / "bin" / "python3")
    folders = interpreter_folders(str(tmp_path / "venv" / "bin" / "python"))
    assert folders == (tmp_path / "venv", tmp_path / "home" / "python")
    assert set(private_ancestors([folders[1]])) & {tmp_path / "home", *tmp_path.parents}
