"""What the demonstration promises, and what became of each promise: plain words and values."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence

SPINE: Mapping[str, str] = {
    "start": "one command starts everything, with embedded defaults",
    "early": "submit now, collect later: nothing is lost in between",
    "picture": "the unmodified client submits, polls and fetches a picture",
    "same_seed": "same seed, same pixels",
    "stream": "a stream shows every denoising step",
    "logs": "log lines reach the request that wrote them",
    "bad_input": "bad input is refused by name before it is queued",
    "cancel": "a cancel reaches a running model within a second",
    "sound": "sound from an audio diffusion model",
    "clip": "a film from the slow model",
    "upload": "uploads work with no host configured (CONNECT proxy)",
    "edit": "an uploaded picture is edited",
    "realtime": "realtime over a WebSocket",
    "burst": "every acknowledged request is answered, though a worker dies",
    "killed": "a worker was killed (-9) in the middle of its work",
    "once": "each of them finished exactly once",
    "webhooks": "signed webhooks arrive and verify; a forged one does not",
    "stop": "everything stops cleanly, no process stays behind",
}
ABUSE: Mapping[str, str] = {
    "start": SPINE["start"],
    "solo": "a well-behaved tenant works alone: its waits are measured",
    "leaked_key": "a leaked key is worth nothing outside its own networks",
    "rotated": "a rotated key goes on through its overlap; the old one then ends by itself",
    "revoked": "a revoked key stops within two seconds",
    "suspended": "a suspended caller is refused within two seconds, told the reason, and may object",
    "strangers": "an API key opens no admin door, and no other tenant's request",
    "probing": "who tries one refused prompt in many spellings is slowed down, by itself and with the reason",
    "ssrf": "no notation of an inner address makes the platform call it",
    "image_bomb": "a picture that unpacks to gigabytes is refused before it is unpacked, and the worker lives",
    "flood": "a flood is turned away at the door, with the moment to come back; nothing over the limit is queued",
    "heavy_jobs": "a tenant's heavy jobs wait for its own share, and others overtake them",
    "pickled_weights": "weights that would run code when they are opened are not admitted",
    "bad_weights": "a bundle whose bytes were changed in the store is not loaded",
    "guessing": "guessed secrets are counted, the guesser's address soon has to wait, and nobody else is locked out",
    "neighbour": "all the while the neighbour's p99 wait stays within 2x of its solo value, or of one service time",
    "audit": "every act is in the audit log with its reason, and the log is whole",
    "stop": SPINE["stop"],
}
SAFETY: Mapping[str, str] = {
    "start": SPINE["start"],
    "policy": "a policy is a file: it is set, and says which detector it rests on",
    "harmless": "a harmless prompt gets its picture, judged on both sides, and the file says who made it",
    "refused": "a harmful prompt is refused with a typed reason that names category and field",
    "disguised": "so is the same prompt in disguise",
    "marker_in": "a marker image at the input is refused before the model is called",
    "marker_out": "a marker image that the model makes is never readable, and no black frame is sold as success",
    "known_hash": "a picture whose hash is known is refused, scaled and coded anew too",
    "judge_killed": "the classifiers are killed in mid-traffic: covered traffic goes on, pictures wait until judged",
    "replayed": "an edited policy is replayed against recent traffic before it decides anything",
    "staged": "it is rolled out in stages: shadow, half, all",
    "appeal": "a blocked request is appealed, released by two people and by no fewer, and runs as a new one",
    "labelled": "what the reviewers found is a label: the next replay tells precision and recall by it",
    "unjudged": "every byte that a caller could read was judged before, by records that nobody altered",
    "stop": SPINE["stop"],
}
SLO: Mapping[str, str] = {
    "start": SPINE["start"],
    "history": "six hours of traffic that another fleet served come in, and every model has an SLO",
    "told": "what burnt there is told to a signed webhook once, in the engine's words, and somebody takes it in hand",
    "hurt": "a busy and a thin model are hurt by real failing requests; what was broken serves again",
    "trace": "a trace is followed from its client through queue and worker into the model's process",
    "busy": "the busy model pages within a minute and a little, by the rule that its traffic allows",
    "thin": "the thin model pages too, by the evidence of a handful of requests",
    "stayed": "the busy model's budget is spent: its next revision is held before it gets any traffic, and says why",
    "single": "one bad request of a thin model wakes nobody, though it is more than the workbook's rule asks for",
    "neither": "callers' own errors and a cancelled request are neither good nor bad",
    "mended": "what is mended is over, and its receiver is told so once",
    "genuine": "every notification is genuine, and none came twice",
    "prometheus": "the exported rules say the same of the same minutes in Prometheus' own engine",
    "stop": SPINE["stop"],
}
QUALITY: Mapping[str, str] = {
    "start": SPINE["start"],
    "learned": "what is healthy is learned from two tenants' outputs, and nothing is found in it",
    "mix": "another mix of prompts is no fault: nothing is found",
    "overflow": "numbers that are none on one worker reach no caller, and stage, replica and device are named",
    "drained": "the bad replica is drained by the loop's own decision, and its worker held back",
    "leak": "an adapter that stays in the pipeline is named at the next request; the last replica is not drained",
    "repeated": "one tenant's picture in another's hands is found, and no content is told",
    "frozen": "a film that stands still is never a success, and fails with the check's name",
    "silent": "nor is a sound that says nothing",
    "revision": "a wrong scheduler setting in a new revision is found by its canaries, and named first",
    "alerted": "each alert came once, signed, though each fault was seen often",
    "record": "every fault that was put in is out again, was nowhere else, and is on record",
    "stop": SPINE["stop"],
}
ROLLOUT: Mapping[str, str] = {
    "start": SPINE["start"],
    "serves": "a model serves, and its callers never stop coming",
    "gates": "a good revision is loaded and passes its gates before any traffic",
    "compared": "in its shadow it answers copies as the control does, seed by seed, and nobody sees it",
    "promoted": "its share grows with the evidence, until no harm is proved and it has all traffic",
    "subtle": "one wrong setting of a scheduler, to which a success rate is blind, is stopped in shadow",
    "unseen": "no caller ever saw a picture of it",
    "passes": "a third revision passes gates and shadow: its fault shows under real traffic alone",
    "rolled_back": "it is rolled back from its canary by itself, with the reason, within its allowance",
    "nothing_lost": "no request was lost, whatever came and went: the callers' own ledger says so",
    "same_verdicts": "every verdict follows again from what is stored",
    "reports": "each rollout ends in a page that a person understands, with pictures side by side",
    "stop": SPINE["stop"],
}
_OWN: Mapping[str, str] = {
    "grown": "a model that requests wait for gets a second replica, on the other worker",
    "failing": "a model begins to fail: its callers get its errors, and none is hidden",
    "paged": "somebody is paged for it, once, in words that say who is hurt",
    "quiet": "nobody is paged for what mends itself: the dead worker, the bad device, the bad revisions",
    "budget": "each model's error budget is what the callers' own ledger makes it, to the last request",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Act:
    """A part of the tour: what it is called, what it is about, and its promises in order."""

    title: str
    about: str
    names: tuple[str, ...]


ACTS: Sequence[Act] = (
    Act(
        "The fleet serves",
        "A client written for fal's own service draws pictures, a film and a sound, and talks over a WebSocket.",
        (
            *(
                "start",
                "grown",
                "early",
                "picture",
                "same_seed",
                "stream",
                "logs",
                "bad_input",
                "cancel",
                "sound",
                "clip",
            ),
            *("upload", "edit", "realtime"),
        ),
    ),
    Act(
        "A disguised prompt is refused",
        "A policy is put in force. What is harmless is drawn; what is not is refused with its category, however spelt.",
        ("policy", "harmless", "refused", "disguised"),
    ),
    Act(
        "A worker is killed",
        "A worker process gets kill -9 in the middle of its work, and every request that was acknowledged is answered.",
        ("killed", "burst", "once", "webhooks"),
    ),
    Act(
        "A bad device is found and drained",
        "One worker's arithmetic breaks. No caller gets a black picture, and the replica is found, named and drained.",
        ("overflow", "drained", "record"),
    ),
    Act(
        "Two bad revisions are stopped",
        "One is stopped in its shadow, before any caller sees it; the other is rolled back from under real traffic.",
        ("subtle", "unseen", "passes", "rolled_back", "nothing_lost", "same_verdicts", "reports"),
    ),
    Act(
        "The budget and the pages agree",
        "Who was woken, who was not, and what all of it has cost, by the platform and by the callers' own ledger.",
        ("failing", "paged", "quiet", "budget", "stop"),
    ),
)
TOUR: Mapping[str, str] = {
    name: {**SPINE, **SAFETY, **QUALITY, **ROLLOUT, **_OWN}[name] for act in ACTS for name in act.names
}
SCENARIOS: Mapping[str, Mapping[str, str]] = {
    "tour": TOUR,
    "spine": SPINE,
    "abuse": ABUSE,
    "safety": SAFETY,
    "slo": SLO,
    "quality": QUALITY,
    "rollout": ROLLOUT,
}


class Mark(enum.StrEnum):
    """What became of a promise."""

    WAITING = "waiting"
    RUNNING = "running"
    KEPT = "kept"
    BROKEN = "broken"


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A promise with its mark and the evidence for it."""

    name: str
    mark: Mark = Mark.WAITING
    evidence: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The promise in words."""
        return next(promises[self.name] for promises in SCENARIOS.values() if self.name in promises)


@dataclasses.dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of the output folder, with what it shows."""

    name: str
    caption: str


def all_kept(promises: Mapping[str, Kept], wanted: Mapping[str, str]) -> bool:
    """Tell whether every promise of `wanted` was made and kept; one that was never tried counts as broken."""
    return all(name in promises and promises[name].mark is Mark.KEPT for name in wanted)
