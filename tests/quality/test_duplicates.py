"""The same output for different requests, by digests alone."""

from collections.abc import Sequence

from tests.quality.streams import fact, healthy

from forestay.quality.duplicates import LEAST_OWN, Duplicate, Duplicates
from forestay.telemetry.output_facts import OutputFact


def told(*facts: OutputFact) -> list[Duplicate]:
    """Follow outputs after some of others."""
    watch = Duplicates()
    assert watch.take(healthy(50, 1)) == []
    return watch.take(facts)


def shown(number: int, **changed: object) -> OutputFact:
    """Return a picture that shows something."""
    values: Sequence[float] = [100.0] * 16
    return fact(number, values, **{"content": 7, "likeness": 9, "prompt": number + 1, **changed})


def test_another_tenants_output_is_found_at_once() -> None:
    """The same bytes for other words."""
    (found,) = told(shown(100), shown(101, tenant_id="other"))
    assert found.across_tenants
    assert (found.first.tenant_id, found.fact.tenant_id) == ("acme", "other")


def test_a_picture_that_was_packed_anew_is_found_by_its_likeness_and_its_numbers() -> None:
    """Other bytes; with other numbers it is another picture of the same look."""
    assert told(shown(100), shown(101, tenant_id="other", content=8))
    assert not told(shown(100), fact(101, [90.0] * 16, likeness=9, content=8, tenant_id="other"))


def test_the_same_words_with_the_same_seed_are_no_duplicate() -> None:
    """Nor without a seed; with two different seeds they are one."""
    assert not told(shown(100, prompt=5, seed=3), shown(101, prompt=5, seed=3, tenant_id="other"))
    assert not told(shown(100, prompt=5), shown(101, prompt=5, seed=3, tenant_id="other"))
    assert told(shown(100, prompt=5, seed=4), shown(101, prompt=5, seed=3, tenant_id="other"))


def test_within_a_tenant_several_are_needed() -> None:
    """One may be asked for in other words."""
    facts = [shown(100 + number) for number in range(LEAST_OWN + 1)]
    assert not told(*facts[:LEAST_OWN])
    (found,) = told(*facts)
    assert (found.across_tenants, found.times) == (False, LEAST_OWN)


def test_outputs_that_show_nothing_or_failed_are_none() -> None:
    """One colour, silence, a broken file: all of them are alike."""
    flat = [100.0, 0.5, *[0.0] * 14]
    assert not told(fact(100, flat, content=7), fact(101, flat, content=7, tenant_id="other"))
    quiet = [-90.0, *[0.0] * 6, 1.0, *[0.0] * 3]
    assert not told(*(fact(100 + one, quiet, kind="audio", content=7, tenant_id=str(one)) for one in range(2)))
    assert not told(*(shown(100 + one, failed="black", tenant_id=str(one)) for one in range(2)))
