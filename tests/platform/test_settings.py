"""Every setting that cannot be is refused by its name, before anything starts."""

import dataclasses
from collections.abc import Iterator

import pytest

from forestay.errors import UsageError
from forestay.settings import Settings


def _numbers() -> Iterator[tuple[str, float]]:
    """Yield the variable and default of every setting that is a number."""
    settings = Settings()
    for group in dataclasses.fields(Settings):
        for field in dataclasses.fields(getattr(settings, group.name)):
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                yield field.metadata["variable"], field.default


@pytest.mark.parametrize("text", ["7x", "-2", "1e400", "nan", "-inf", "9" * 23, "0x10", " ", "1,5"])
def test_a_number_that_cannot_be_is_refused_by_the_name_of_its_variable(text: str) -> None:
    """No lease of nan seconds, no pool of minus two connections, no port beyond the last one."""
    for variable, _ in _numbers():
        with pytest.raises(UsageError) as raised:
            Settings.from_environment({variable: text})
        assert raised.value.field == variable


def test_every_default_is_a_value_that_may_be_set() -> None:
    """What the reference page says can be typed as it stands there."""
    written = {variable: str(default) for variable, default in _numbers()}
    assert len(written) > 100
    assert Settings.from_environment(written) == Settings()


@pytest.mark.parametrize("variable", ["FORESTAY_TRACE_RATIO", "FORESTAY_AUDIT_RATIO"])
def test_a_share_is_at_most_one(variable: str) -> None:
    """Two hundred per cent of the requests cannot be looked at."""
    with pytest.raises(UsageError, match="expected 0 to 1"):
        Settings.from_environment({variable: "1.01"})
