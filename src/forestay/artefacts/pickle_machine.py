"""The unpickler's stack and memo with symbols in the place of objects, so that nothing is executed.

It decides what an import, a call or a state would do to whom: which names are imported (also by STACK_GLOBAL, through
memo and stack tricks) and what would be called. Whatever cannot be known for certain is a flaw. Which opcode does which
of these is `pickle_opcodes`'. Semantics: CPython's `pickle.py`.
"""

import dataclasses
from typing import Literal

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.pickle_names import PLAIN_CODECS, is_allowed
from forestay.artefacts.source import Source, broken

MAX_STACK = 1_000_000
MAX_LINE_BYTES = 64 * 1024
MAX_TEXT_BYTES = 1024 * 1024  # of a text whose value matters; longer ones are skipped unread
MAX_NAMES = 50  # told of one pickle
_TRACKED_ITEMS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Symbol:
    """What stands on the stack; `made`: by a call; `items`: a short tuple; `opaque`: without meaning here."""

    kind: Literal["mark", "text", "name", "made", "items", "opaque"]
    text: str = ""
    module: str = ""
    items: tuple["Symbol", ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What one pickle would do; `end` is the offset behind its STOP, None when it has none."""

    end: int | None
    names: tuple[tuple[str, str], ...]  # (module, name) in the order of their import
    flaws: tuple[Flaw, ...]
    acts: bool  # something would be imported or called
    calls: bool = False  # something would be called
    first_number: int | None = None  # the value of a pickle that is one whole number

    @property
    def plain(self) -> bool:
        """Whether it is whole and without flaw."""
        return self.end is not None and not self.flaws


MARK, OPAQUE, MADE = Symbol("mark"), Symbol("opaque"), Symbol("made")


class Machine:
    """The symbolic unpickler."""

    def __init__(self, source: Source, offset: int, *, persistent: bool) -> None:
        self._source = source
        self._start = self._at = self._opcode_at = offset
        self._persistent = persistent
        self._protocol = 0
        self._stack: list[Symbol] = []
        self._memo: dict[int, Symbol] = {}
        self.names: list[tuple[str, str]] = []
        self.flaws: list[Flaw] = []
        self.acts = False
        self.calls = False
        self.number: int | None = None

    def begin(self) -> tuple[str, str]:
        """Take the next opcode; returns its byte as a text, and where it stands."""
        self._opcode_at = self._at
        return self._take(1).decode("latin-1"), self.where()

    def check(self, name: str, protocol: int) -> None:
        """Check that an opcode exists in the declared protocol, and that the stack keeps its bounds."""
        if protocol > max(1, self._protocol) and name != "PROTO":
            self.unclear(f"{name} does not exist in protocol {self._protocol}, which it declares")
        if len(self._stack) > MAX_STACK or len(self._memo) > MAX_STACK:
            broken(FlawKind.LIMIT, self.where(), f"more than {MAX_STACK} objects at a time")

    def stop(self) -> int:
        """Return the offset behind STOP."""
        if len(self._stack) != 1 or self._stack[0].kind == "mark":
            self.unclear(f"STOP with {len(self._stack)} objects on the stack, a pickle leaves one")
        return self._at

    def reading(self, end: int | None) -> Reading:
        """Return what was seen."""
        return Reading(end, tuple(self.names), tuple(self.flaws), self.acts, self.calls, self.number)

    # Bytes

    def _take(self, length: int) -> bytes:
        if self._at + length > self._source.size:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "it ends within an opcode, without STOP")
        data = self._source.read(self._at, length)
        self._at += length
        return data

    def number_of(self, length: int, *, signed: bool = False) -> int:
        """Take a little-endian number."""
        return int.from_bytes(self._take(length), "little", signed=signed)

    def line(self) -> str:
        """Take a line."""
        length = min(MAX_LINE_BYTES, self._source.size - self._at)
        line, newline, _ = self._source.read(self._at, length).partition(b"\n")
        if not newline:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "an argument without the end of its line")
        self._at += len(line) + 1
        return line.decode("latin-1")  # names on the allow-list are ASCII, so that no other reading matters

    def sized(self, width: int, *, text: bool) -> None:
        """Push what follows a length of `width` bytes, reading it only if it is a text that may be a name."""
        length = self.number_of(width)
        if length > self._source.size - self._at:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), f"an argument of {length} bytes, more than there are")
        if not text or length > MAX_TEXT_BYTES:
            self._at += length
            self.push(OPAQUE)
            return
        data = self._take(length)
        self.push(Symbol("text", data.decode("utf-8", "surrogatepass")) if _is_utf8(data) else OPAQUE)

    # The stack

    def push(self, symbol: Symbol) -> None:
        """Push."""
        self._stack.append(symbol)

    def pop(self) -> Symbol:
        """Pop one object; a mark in its place cannot be unpickled."""
        if not self._stack:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "takes from an empty stack")
        return self._stack.pop()

    def pop_object(self) -> Symbol:
        """Pop something that is no mark."""
        symbol = self.pop()
        if symbol.kind == "mark":
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "takes a mark for an object")
        return symbol

    def pop_to_mark(self) -> tuple[Symbol, ...]:
        """Pop everything above the last mark, and the mark."""
        items: list[Symbol] = []
        while True:
            if not self._stack:
                broken(FlawKind.PICKLE_UNCLEAR, self.where(), "looks for a mark that is not there")
            symbol = self._stack.pop()
            if symbol.kind == "mark":
                return tuple(reversed(items))
            items.append(symbol)

    def top(self) -> Symbol:
        """Look at the top."""
        if not self._stack or self._stack[-1].kind == "mark":
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "looks at an empty stack")
        return self._stack[-1]

    def push_items(self, items: tuple[Symbol, ...]) -> None:
        """Push a tuple; a short one is remembered item by item."""
        self.push(Symbol("items", items=items) if len(items) <= _TRACKED_ITEMS else OPAQUE)

    def remember(self, index: int) -> None:
        """Put the top into the memo."""
        if index < 0:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), "a negative memo index")
        self._memo[index] = self.top()

    def remember_next(self) -> None:
        """Put the top into the memo under the next index."""
        self._memo[len(self._memo)] = self.top()

    def recall(self, index: int) -> None:
        """Push what the memo holds."""
        if index not in self._memo:
            broken(FlawKind.PICKLE_UNCLEAR, self.where(), f"memo {index} holds nothing")
        self.push(self._memo[index])

    # What acts

    def import_name(self, module: str, name: str) -> Symbol:
        """Note an import and return the name; one outside the allow-list is a flaw."""
        self.acts = True
        if not is_allowed(module, name) and len(self.flaws) < MAX_NAMES:
            self.flaws.append(Flaw(FlawKind.PICKLE_GLOBAL, self.where(), f"names {shown(f'{module}.{name}', 120)}"))
        if len(self.names) < MAX_NAMES:
            self.names.append((module, name))
        return Symbol("name", name, module)

    def import_from_stack(self) -> None:
        """STACK_GLOBAL: both names must be texts whose value is known."""
        name, module = self.pop_object(), self.pop_object()
        if name.kind != "text" or module.kind != "text":
            self.acts = True
            self.unclear("STACK_GLOBAL imports something whose name is made at run time")
            self.push(MADE)
            return
        self.push(self.import_name(module.text, name.text))

    def call(self, callee: Symbol, arguments: Symbol) -> None:
        """Note a call and push its result; what is called must be a name known by now."""
        self.acts = self.calls = True
        if callee.kind != "name":
            self.unclear("calls something that is no imported name")
        elif callee.module == "_codecs" and not _is_plain_encode(arguments):
            self.unclear("calls _codecs.encode with something else than a text and a plain codec")
        self.push(MADE)

    def build(self) -> None:
        """BUILD: state may be given only to what a call has made, never to an imported class or function."""
        self.pop_object()
        if self.top().kind != "made":
            self.acts = self.calls = True
            self.unclear("BUILD gives a state to something that no call has made")

    def persistent(self, item: Symbol | None) -> None:
        """PERSID, BINPERSID: the caller's own loader decides; only torch's archives have one."""
        if not self._persistent or item is None:
            self.unclear("asks for a persistent id, which is resolved by code outside the pickle")
        self.push(MADE)

    def extension(self, width: int) -> None:
        """EXT1, EXT2, EXT4: a number in a registry of the reading process."""
        self.acts = True
        self.unclear(f"imports extension {self.number_of(width)}, whose meaning depends on the reader")
        self.push(MADE)

    def declare(self) -> None:
        """PROTO: only the first opcode, at most 5."""
        version = self.number_of(1)
        if self._opcode_at != self._start or version > 5:
            self.unclear(f"PROTO {version} where it does not belong")
        self._protocol = version

    def frame(self) -> None:
        """FRAME: a length within the file."""
        length = self.number_of(8)
        if length > self._source.size - self._at:
            self.unclear(f"a frame of {length} bytes, more than there are")

    def push_number(self, value: int | None) -> None:
        """Push a number; the first one of all is kept, since old torch files begin with a magic one."""
        if not self._stack and not self._memo and self.number is None:
            self.number = value
        self.push(OPAQUE)

    def unclear(self, what: str) -> None:
        """Note that something cannot be known."""
        if len(self.flaws) < MAX_NAMES:
            self.flaws.append(Flaw(FlawKind.PICKLE_UNCLEAR, self.where(), what))

    def where(self) -> str:
        """Say at which byte the opcode stands."""
        return f"byte {self._opcode_at}"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _is_plain_encode(arguments: Symbol) -> bool:
    items = arguments.items if arguments.kind == "items" else ()
    return (
        len(items) == 2
        and items[0].kind in {"text", "opaque"}  # opaque: a text too long to be read
        and items[1].kind == "text"
        and items[1].text in PLAIN_CODECS
    )
