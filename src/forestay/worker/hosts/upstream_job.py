"""The job that an attempt has begun at a provider, as the next attempt finds it in the request's notes. Pure.

A provider is paid for each job that it accepts. So the job's paths are noted before it is waited for: when the worker
is lost, or the provider falls silent, the next attempt waits for the same job instead of buying another. It decides
what a note means for this provider and endpoint; writing, and when a job is over, is `hosts/provider.py`'s.
"""

import dataclasses

import msgspec

MAX_NOTE_CHARS = 4_000


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A job at the provider."""

    status_path: str
    response_path: str
    cancel_path: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """What is known of a request at one provider: how many of its jobs are over, and the one that runs, if any."""

    target: str  # the provider's URL and the endpoint: a note about another one says nothing here
    jobs_over: int = 0
    job: Job | None = None

    def over(self) -> "Note":
        """Return what is left once the job has ended: the next attempt buys another."""
        return dataclasses.replace(self, jobs_over=self.jobs_over + 1, job=None)


def read_note(text: str | None, target: str) -> Note:
    """Read a note about `target`; an absent, foreign or unreadable one is as good as none."""
    if text is None:
        return Note(target)
    try:
        note = msgspec.json.decode(text, type=Note)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Note(target)
    return note if note.target == target else Note(target)


def write_note(note: Note) -> str | None:
    """Write a note; None when it is too long to be kept."""
    text = msgspec.json.encode(note).decode()
    return text if len(text) <= MAX_NOTE_CHARS else None
