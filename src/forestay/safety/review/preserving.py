"""What the law asks for once a known picture has matched, done with what the platform has: withhold, and preserve.

The withholder makes sure that nobody can read what the case's request made: a withheld output is blocked, files that
were released are shut again; a request that has not ended yet is looked at again later, and nothing is released
meanwhile because the guard has blocked it. The keeper holds every sealed copy of the request and puts its files under
seal, so that retention leaves them alone. Decides nothing: `hashes/report` says what a case needs. Given to
`hashes/report_loop` by the controller.
"""

from collections.abc import Sequence

from forestay.errors import Refused, Unavailable
from forestay.ids import parse_request_id
from forestay.media.store import MediaItem, MediaStore
from forestay.queue.model import FINAL, State
from forestay.queue.store import QueueStore
from forestay.safety.decide import Judgement
from forestay.safety.hashes.report import Case
from forestay.safety.policy import Action
from forestay.safety.refusal import refusal
from forestay.safety.review.sealed import Label, Reader, SealedStore
from forestay.safety.taxonomy import Category
from forestay.storage.valkey import Wakeups
from forestay.verdicts import Verdict

MAX_FILES = 100
ACTOR = "loop:reports"


class RequestWithholder:
    """Withholds what a request made; `hashes/report_loop.Withholder`."""

    def __init__(self, queue: QueueStore, media: MediaStore, wakeups: Wakeups) -> None:
        self._queue = queue
        self._media = media
        self._wakeups = wakeups

    async def withhold(self, case: Case) -> None:
        """Make sure that nobody can read it; doing so twice is harmless. Unavailable: it has not ended yet."""
        request_id = parse_request_id(case.opened.request_id)
        if request_id is None:
            return
        files = await self._media.of_request(request_id, MAX_FILES)
        await self._media.withhold([item.media_id for item in files])
        found = (await self._queue.snapshots([request_id])).get(request_id)
        if found is None or found.state in FINAL:
            return
        if found.state is not State.WITHHELD:
            raise Unavailable(f"request {request_id} is {found.state} and has not ended", retry_after_seconds=1.0)
        reason = f"case {case.opened.case_id}"
        judged = Judgement(Verdict.BLOCK, Action.BLOCK, _category_of(case), case.opened.place, reason)
        await self._queue.withheld(request_id, State.BLOCKED, refusal(judged, "output"))
        await self._wakeups.publish("forestay:changed", request_id.hex)


class SealedKeeper:
    """Preserves what a case is about; `hashes/report_loop.Keeper`."""

    def __init__(self, sealed: SealedStore, media: MediaStore) -> None:
        self._sealed = sealed
        self._media = media

    async def preserve(self, case: Case) -> str:
        """Hold what is sealed of the request, seal its files, and return the copy's id; twice is harmless."""
        opened = case.opened
        request_id = parse_request_id(opened.request_id)
        files: Sequence[MediaItem] = ()
        if request_id is not None:
            files = await self._media.of_request(request_id, MAX_FILES)
        copies = [
            await self._sealed.put_stream(
                Label("media", opened.request_id, opened.tenant_id, item.media_id, held=True),
                self._media.open(item, 0, item.size_bytes),
            )
            for item in files
        ]
        await self._sealed.hold(opened.request_id)
        for kind in ("media", "output", "input"):
            copies += await self._sealed.of_request(opened.request_id, kind)
        if not copies:
            raise Unavailable(
                f"nothing of request {opened.request_id} is there to be preserved", retry_after_seconds=60.0
            )
        return copies[0]

    async def read(self, sealed_id: str) -> bytes:
        """Return a preserved copy, which is noted like every reading; Refused when it is gone."""
        data = await self._sealed.read(sealed_id, Reader(ACTOR, "report", "the law asks for it"))
        if data is None:
            raise Refused(f"preserved copy {sealed_id} is gone")
        return data


def _category_of(case: Case) -> Category | None:
    return Category(case.opened.category) if case.opened.category in set(Category) else None
