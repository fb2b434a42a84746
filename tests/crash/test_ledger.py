"""The drill's own judge: it must see what it is there to see."""

from bench.crash import Entry, Kill, Outside, Plan, _judge, rows_of

PLAN = Plan(kills=1, lease_seconds=2.0)
GOOD = {"webhook": False, "status_code": 200, "digest": "a"}


def verdicts(outside: Outside, *entries: Entry) -> dict[str, bool | None]:
    """Judge the entries after one kill of a worker at 100 s; returns what each row of the table says."""
    outcome = _judge(PLAN, [Kill("worker-1", 100.0)], list(entries), outside)
    return {row.name.removesuffix(", 2 s lease"): row.met() for row in rows_of(outcome)}


def test_a_clean_ledger_meets_every_target() -> None:
    """Nothing is found where nothing is wrong."""
    said = verdicts(Outside(), Entry(1, "one", **GOOD))
    assert all(met is not False for met in said.values())


def test_a_request_without_a_result_is_lost() -> None:
    """Acknowledged and never ended."""
    assert verdicts(Outside(), Entry(1, "one", webhook=False))["lost"] is False


def test_a_result_that_changed_was_published_twice() -> None:
    """Two reads, two results."""
    assert verdicts(Outside(), Entry(1, "one", changed=True, **GOOD))["published twice"] is False


def test_two_webhooks_with_different_payloads_are_two_results() -> None:
    """A repeated webhook must say the same."""
    outside = Outside()
    outside.hooks["one"] = {"a", "b"}
    entry = Entry(1, "one", webhook=True, status_code=200, digest="a")
    assert verdicts(outside, entry)["published twice"] is False


def test_a_webhook_that_never_came_is_missed() -> None:
    """Asked for, ended, never told."""
    assert verdicts(Outside(), Entry(1, "one", webhook=True, status_code=200, digest="a"))["webhooks missing"] is False


def test_an_orphan_that_waits_longer_than_one_and_a_half_leases_is_late() -> None:
    """Cut by the kill at 100 s, run again 3.1 s later, with a lease of 2 s."""
    outside = Outside()
    outside.starts[1] = [99.0, 103.1]
    outside.cuts[1] = [100.02]
    assert verdicts(outside, Entry(1, "one", **GOOD))["slowest orphan"] is False
    outside.starts[1] = [99.0, 102.9]
    assert verdicts(outside, Entry(1, "one", **GOOD))["slowest orphan"] is True


def test_a_run_that_went_on_elsewhere_is_no_orphan() -> None:
    """Only a run whose connection was cut by the kill counts."""
    outside = Outside()
    outside.starts[1] = [99.0, 120.0]
    outside.cuts[1] = [115.0]
    assert verdicts(outside, Entry(1, "one", **GOOD))["slowest orphan"] is True
