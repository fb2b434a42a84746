"""How many more requests the rules on counts in flight let run. Pure.

It decides what is left of each rule for one claim; which requests get it is the business of turns. Called by
`claiming`, which reads the rows under the pool's lock: inside one pool a count is never exceeded, across pools by what
two claims of one moment take.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.queue.store import Offer

OTHERS = "*"


@dataclasses.dataclass(frozen=True, slots=True)
class Rooms:
    """What may still begin, by subject; `others` of a scope is for each subject not named, None without a limit."""

    tenants: Mapping[str, int]
    keys: Mapping[str, int]
    models: Mapping[str, int]
    other_tenants: int | None
    other_keys: int | None
    other_models: int | None
    fleet: int | None

    def of_model(self, model_id: str) -> int | None:
        """Return how many more requests of a model may run."""
        return self.models.get(model_id, self.other_models)

    def short_tenants(self, count: int) -> list[str]:
        """Name the tenants of which fewer than `count` more may run."""
        return [tenant_id for tenant_id, room in self.tenants.items() if room < count]

    def short_keys(self, count: int) -> list[str]:
        """Name the keys of which fewer than `count` more requests may run."""
        return [key_id for key_id, room in self.keys.items() if room < count]

    def wide_enough(self, count: int) -> bool:
        """Tell whether `count` more may run of everyone whom no rule names, and of the whole fleet."""
        return all(room is None or room >= count for room in (self.other_tenants, self.other_keys, self.fleet))


def rooms_of(rows: Sequence[tuple[str, str, int]]) -> Rooms:
    """Arrange (scope, subject, room) rows; a room is never below nothing."""
    by_scope: dict[str, dict[str, int]] = {"tenant": {}, "key": {}, "model": {}, "fleet": {}}
    for scope, subject, room in rows:
        by_scope[scope][subject] = max(0, room)
    others = {scope: found.pop(OTHERS, None) for scope, found in by_scope.items()}
    return Rooms(
        tenants=by_scope["tenant"],
        keys=by_scope["key"],
        models=by_scope["model"],
        other_tenants=others["tenant"],
        other_keys=others["key"],
        other_models=others["model"],
        fleet=others["fleet"],
    )


def within_models(offers: Sequence[Offer], rooms: Rooms) -> list[Offer]:
    """Return the offers with no more slots than their models have room for, the first offers first."""
    left: dict[str, int] = {}
    kept: list[Offer] = []
    for offer in offers:
        room = left.get(offer.model_id, rooms.of_model(offer.model_id))
        slots = offer.slots if room is None else min(offer.slots, room)
        if room is not None:
            left[offer.model_id] = room - slots
        if slots > 0:
            kept.append(offer if slots == offer.slots else dataclasses.replace(offer, slots=slots))
    return kept
