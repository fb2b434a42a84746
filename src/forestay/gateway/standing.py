"""Standings as one gateway feels them: who is refused, who is slowed, what the caller is told.

Read from the fleet's snapshot (`fleet_view` replaces it on every load), so a standing set anywhere is felt as soon as
`forestay:fleet` arrives. Decides what each kind means here: suspended and stepped-up callers get 403 and 401 with a
code, an id and where to appeal; throttled ones a pace of their own; watched and referred ones nothing. Called by
`guards`, the queue's routes, uploads and tokens; it never sets a standing.
"""

import dataclasses
import math
from collections.abc import Mapping

from forestay.clock import Clock
from forestay.fleet.keys import Caller
from forestay.fleet.standing import SEVERITY, Standing, StandingKind, key_subject, network_subject, tenant_subject
from forestay.gateway.responses import Header, Reply, json_reply

APPEAL_PATH = "/standing/appeal"
BURST = 5  # calls that a throttled caller may make at once after a pause
NETWORK_RATE = 0.2  # look-ups per second of credentials that this gateway has not proven yet, from a doubted network
_WORDS: Mapping[StandingKind, str] = {
    StandingKind.SUSPEND: "is suspended",
    StandingKind.STEP_UP: "must be issued anew: create a new key, then revoke this one",
    StandingKind.THROTTLE: "may call at a reduced pace",
}


@dataclasses.dataclass(slots=True)
class _Pace:
    """GCRA, the generic cell rate algorithm (ITU-T I.371): one theoretical arrival time stands for a whole bucket."""

    expected_at: float = 0.0

    def wait(self, now: float, per_second: float, burst: int) -> float:
        """Take one call and return 0, or return the seconds until one is free. `now` is monotonic."""
        interval = 1.0 / per_second
        early = self.expected_at - now - (burst - 1) * interval
        if early > 0:
            return early
        self.expected_at = max(self.expected_at, now) + interval
        return 0.0


class Standings:
    """The standings in force, from memory."""

    def __init__(self, clock: Clock, throttled_rate: float) -> None:
        self._clock = clock
        self._rate = throttled_rate
        self._by_subject: Mapping[str, Standing] = {}
        self._paces: dict[str, _Pace] = {}

    def replace(self, by_subject: Mapping[str, Standing]) -> None:
        """Take a newer load; a pace is kept while its standing is."""
        self._by_subject = by_subject
        self._paces = {subject: pace for subject, pace in self._paces.items() if subject in by_subject}

    def of(self, caller: Caller) -> Standing | None:
        """Return the graver of the key's and its tenant's standing, None when neither has one."""
        if not self._by_subject:
            return None
        found = [self._in_force(key_subject(caller.key_id)), self._in_force(tenant_subject(caller.tenant_id))]
        return max((item for item in found if item), key=lambda item: SEVERITY[item.kind], default=None)

    def factor(self, caller: Caller) -> float:
        """Return what the caller's limits are multiplied by: 1 unless throttled."""
        standing = self.of(caller)
        return standing.factor if standing is not None and standing.kind is StandingKind.THROTTLE else 1.0

    def refuse_call(self, caller: Caller) -> Reply | None:
        """Return the refusal of new work, None when the caller may go on."""
        standing = self.of(caller)
        if standing is not None and standing.kind is StandingKind.THROTTLE:
            return self._paced(standing, self._rate * standing.factor, BURST)
        return self.refuse_entry(caller)

    def refuse_entry(self, caller: Caller) -> Reply | None:
        """Return the refusal of an upload or a token: as a call's, but a slowed caller is not slowed here."""
        standing = self.of(caller)
        if standing is None:
            return None
        match standing.kind:
            case StandingKind.SUSPEND:
                return _refusal(403, standing)
            case StandingKind.STEP_UP:
                return _refusal(401, standing, (b"www-authenticate", b"Key"))
            case StandingKind.THROTTLE | StandingKind.WATCH | StandingKind.REFER:
                return None

    def refuse_reading(self, caller: Caller) -> Reply | None:
        """Return the refusal to look at requests accepted before: only where a suspension freezes results."""
        standing = self.of(caller)
        if standing is None or standing.kind is not StandingKind.SUSPEND or not standing.freeze_results:
            return None
        return _refusal(403, standing)

    def doubts(self, network: str) -> bool:
        """Tell whether the network has a standing under which `refuse_unproven` may refuse."""
        if not self._by_subject or not network:
            return False
        standing = self._in_force(network_subject(network))
        return standing is not None and standing.kind not in {StandingKind.WATCH, StandingKind.REFER}

    def refuse_unproven(self, network: str) -> Reply | None:
        """Return the refusal to look up an unknown credential that comes from a doubted network.

        Callers whose key this gateway has proven lately never meet it, so neighbours behind one address go on.
        """
        standing = self._in_force(network_subject(network)) if self.doubts(network) else None
        return None if standing is None else self._paced(standing, NETWORK_RATE, 1)

    def _paced(self, standing: Standing, per_second: float, burst: int) -> Reply | None:
        pace = self._paces.setdefault(standing.subject, _Pace())
        wait = pace.wait(self._clock.monotonic(), per_second, burst)
        return _refusal(429, standing, (b"retry-after", b"%d" % max(1, math.ceil(wait)))) if wait else None

    def _in_force(self, subject: str) -> Standing | None:
        standing = self._by_subject.get(subject)
        return standing if standing is not None and standing.expires_at > self._clock.now() else None


def shown(standing: Standing) -> dict[str, object]:
    """Return a standing as its own subject may see it: never the rule, its thresholds or the evidence."""
    return {
        "id": standing.standing_id,
        "kind": standing.kind,
        "code": standing.code,
        "since": standing.since,
        "expires_at": standing.expires_at,
        "appeal": f"POST {APPEAL_PATH}",
    }


def _refusal(status_code: int, standing: Standing, *headers: Header) -> Reply:
    subject, _, _ = standing.subject.partition(":")
    detail = (
        f"This {subject} {_WORDS[standing.kind]} ({standing.code}, {standing.standing_id}) until "
        f"{standing.expires_at:%Y-%m-%dT%H:%M:%SZ}; to object, POST {APPEAL_PATH}"
    )
    error_type = {429: "throttled", 401: "step_up_required", 403: "suspended"}[status_code]
    body = {"detail": detail, "error_type": error_type, "standing": shown(standing)}
    reply = json_reply(status_code, body, (b"x-fal-error-type", error_type.encode()), *headers)
    return dataclasses.replace(reply, cause=error_type)
