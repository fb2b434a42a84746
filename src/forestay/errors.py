"""Errors that callers treat differently; everything else is a builtin or a value.

ForestayError
├── UsageError            the caller's input is wrong: names the field and the mend; CLI exit 2, HTTP 4xx
├── Unavailable           a dependency does not answer: retry after `retry_after_seconds`
└── Refused               a promise forbids it (stale fence, frozen fleet, locked data dir): do not retry
"""


class ForestayError(Exception):
    """Root of the errors that Forestay raises on purpose; its text is fit for a person at 3 a.m."""


class UsageError(ForestayError):
    """The caller's input is wrong; `field` names what to mend."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Unavailable(ForestayError):
    """A dependency does not answer now; trying again after `retry_after_seconds` may help."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Refused(ForestayError):
    """A promise forbids it; trying again will not help without a person's act."""
