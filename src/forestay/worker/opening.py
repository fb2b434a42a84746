"""Opens what stands in an input or an output, so that it can be judged: files of ours, data: URIs, bytes, links.

Each is brought into a scratch file under a cap and looked at in the limited child; what cannot be is a place without a
look, which the policy answers. A link of somebody else in an output is fetched and from then on ours, so that what is
read later is what was judged; in an input it is not fetched here. Decides no content. Called by `judging` for outputs
and by `input_judging` for inputs.
"""

import asyncio
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Protocol

from forestay.clock import Clock
from forestay.errors import ForestayError
from forestay.media.decode import MediaRefused, open_scratch
from forestay.media.formats import content_type_of, safe_file_name
from forestay.media.store import MediaStore
from forestay.media.urls import own_media_id
from forestay.safety.decide import Place
from forestay.safety.guard import Guard, Item, Subject
from forestay.safety.leaves import Leaf, LeafKind, Path, unpacked, unpacked_bare
from forestay.safety.model import Text
from forestay.safety.taxonomy import Modality
from forestay.safety.text.blobs import SCANNED_BYTES, text_in, words_in
from forestay.safety.text.fields import texts_of
from forestay.telemetry.logs import logger
from forestay.worker.stamping import Stamping

AT_A_TIME = 4  # files of one body that are opened at once
MAX_FILES = 64
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024  # of a file that is read as a text; in a larger one words are looked for
_INLINE = frozenset({LeafKind.BYTES, LeafKind.DATA, LeafKind.PACKED})
MEDIA = frozenset({Modality.IMAGE, Modality.VIDEO, Modality.AUDIO})
log = logger("worker")


class Fetcher(Protocol):
    """Fetches a URL that a stranger named; see `media/fetch`."""

    async def fetch_into(self, url: str, write: Callable[[bytes], object], max_bytes: int | None = None) -> int:
        """Pass the body on; a ForestayError says why not."""
        ...


class Viewer(Protocol):
    """Opens media in a limited child and takes looks at it; see `safety/media`."""

    async def look(self, file: IO[bytes], where: str, prompt_score: float) -> Sequence[Item]:
        """Return the items to judge; MediaRefused when the file cannot be opened."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class JudgingPorts:
    """What judging outputs may use of the world."""

    guard: Guard
    media: MediaStore
    fetcher: Fetcher
    viewer: Viewer
    folder: pathlib.Path  # for scratch files
    clock: Clock
    file_seconds: float  # to bring and open one file
    stamping: Stamping | None = None


@dataclasses.dataclass(slots=True)
class Work:
    """One body while it is judged."""

    subject: Subject
    wanted: frozenset[Modality]
    lifetime_seconds: int | None
    prompt_score: float
    adopts: bool = True  # foreign links become ours; False: they cannot be looked at
    items: list[Item] = dataclasses.field(default_factory=list[Item])
    digests: list[str] = dataclasses.field(default_factory=list[str])
    adopted: dict[Path, dict[str, str]] = dataclasses.field(default_factory=dict[Path, dict[str, str]])  # link -> ours
    inline: int = 0  # media that stand in the body itself: no stored files, so nothing can be written into them

    def say(self, texts: Mapping[str, str]) -> None:
        """Add texts by their places."""
        if Modality.TEXT in self.wanted:
            self.items += [Item(Place(where, Modality.TEXT), (Text(where, text),)) for where, text in texts.items()]

    def adopt(self, leaf: Leaf, url: str) -> None:
        """Note what stands in the place of a link from now on."""
        self.adopted.setdefault(leaf.path, {})[leaf.text.strip()] = url

    def texts(self) -> list[Text]:
        """Return every text that is to be judged."""
        return [look for item in self.items for look in item.looks if isinstance(look, Text)]

    def unreadable(self, where: str) -> None:
        """Note a place that could not be opened: every kind of media that the policy judges may be in it, or text."""
        kinds = self.wanted & MEDIA or self.wanted
        self.items += [Item(Place(where, modality), ()) for modality in sorted(kinds)]

    def read(self, where: str, value: object) -> None:
        """Add every text of a value that was found at a place."""
        found = texts_of(value)
        self.items += [Item(Place(where, Modality.TEXT), (Text(where, text.text),)) for text in found.texts]
        self.items += [Item(Place(where, Modality.TEXT), ()) for _ in found.unread[:1]]


class Opening:
    """Opens files."""

    def __init__(self, ports: JudgingPorts) -> None:
        self._ports = ports

    async def take(self, work: Work, files: Sequence[Leaf]) -> None:
        """Open the files of one body, a few at a time; what is beyond the cap could not be opened."""
        if not work.wanted & MEDIA:  # whoever judges text alone has no link fetched
            files = [leaf for leaf in files if leaf.kind is not LeafKind.LINK]
        for leaf in files[MAX_FILES:]:
            work.unreadable(leaf.where)
        gate = asyncio.Semaphore(AT_A_TIME)

        async def one(leaf: Leaf) -> None:
            async with gate:
                await self.open(work, leaf)

        async with asyncio.TaskGroup() as group:
            for leaf in files[:MAX_FILES]:
                group.create_task(one(leaf))

    async def open(self, work: Work, leaf: Leaf) -> None:
        """Bring one file here and look at it; what fails is a place that could not be opened.

        Of an output the words are read as well: a file that is a text, and what stands between the bytes of another.
        """
        try:
            async with asyncio.timeout(self._ports.file_seconds):
                with open_scratch(self._ports.folder) as file:
                    await self._bring(work, leaf, file)
                    if work.adopts and Modality.TEXT in work.wanted:
                        work.read(leaf.where, await asyncio.to_thread(_said_in, file))
                    if work.wanted & MEDIA:
                        work.items += await self._ports.viewer.look(file, leaf.where, work.prompt_score)
                    work.inline += leaf.kind in _INLINE
        except (ForestayError, MediaRefused, OSError, TimeoutError, ValueError) as error:
            log.info("judging.unreadable", request=str(work.subject.request_id), reason=type(error).__name__)
            work.unreadable(leaf.where)

    async def _bring(self, work: Work, leaf: Leaf, file: IO[bytes]) -> None:
        digest = hashlib.sha256()
        size = 0

        def write(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > MAX_FILE_BYTES:
                raise ValueError("the file is too large to be judged")
            digest.update(piece)
            file.write(piece)

        match leaf.kind:
            case LeafKind.BYTES:
                write(leaf.data)
            case LeafKind.DATA:
                write(await asyncio.to_thread(unpacked, leaf.text))
            case LeafKind.PACKED:
                write(await asyncio.to_thread(unpacked_bare, leaf.text))
            case _:
                await self._read(work, leaf, write, file)
        file.flush()
        file.seek(0)
        work.digests.append(f"sha256:{digest.hexdigest()}")

    async def _read(self, work: Work, leaf: Leaf, write: Callable[[bytes], None], file: IO[bytes]) -> None:
        """Read a stored file; fetch a foreign one and make it ours: what it names may be another file tomorrow."""
        media_id = own_media_id(leaf.text.strip())
        item = await self._ports.media.find(media_id) if media_id is not None else None
        if item is not None:
            async for piece in self._ports.media.open(item, 0, item.size_bytes):
                write(piece)
            if leaf.kind is LeafKind.LINK and work.adopts:  # whatever host it names: what was judged is ours
                work.adopt(leaf, item.url)
            return
        if leaf.kind is LeafKind.STORED or not work.adopts:
            raise ValueError("the stored file is gone")
        await self._ports.fetcher.fetch_into(leaf.text.strip(), write, MAX_FILE_BYTES)
        work.adopt(leaf, await self._adopt(work, leaf, file))

    async def _adopt(self, work: Work, leaf: Leaf, file: IO[bytes]) -> str:
        file.flush()
        file.seek(0)
        name = leaf.text.strip().partition("?")[0].rpartition("/")[2][:200]
        data = file.read()
        kind = content_type_of(data[:4096], file_name=name, declared="")
        saved = await self._ports.media.save(
            data,
            tenant_id=work.subject.tenant_id,
            file_name=safe_file_name(name, kind),
            content_type=kind,
            request_id=work.subject.request_id,
            attempt=work.subject.attempt,
            lifetime_seconds=work.lifetime_seconds,
            state="quarantine",
        )
        return saved.url


def items_of(texts: Sequence[Text]) -> list[Item]:
    """Return texts as something to judge, each at its place."""
    return [Item(Place(text.where, Modality.TEXT), (text,)) for text in texts]


def _said_in(file: IO[bytes]) -> str:
    """Return what a file says: all of a text, the words between the bytes of anything else; its place is its start."""
    size = file.seek(0, 2)
    file.seek(0)
    if size <= MAX_TEXT_BYTES:
        data = file.read()
        text = text_in(data)
    else:
        data, text = file.read(SCANNED_BYTES), None
        if text_in(data, cut=True) is not None:
            raise ValueError("the text is too large to be judged")
        file.seek(-SCANNED_BYTES, 2)
        data += b"\0" + file.read()
    file.seek(0)
    return words_in(data) if text is None else text
