"""Walks the opcodes of one pickle as the unpickler would. Nothing is executed.

It decides what each opcode takes from the bytes and from the stack. It knows no container: what surrounds a pickle
(torch's archives, trailing bytes) is `pickle_file`'s. Opcodes and their protocols: CPython's `pickletools`.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from forestay.artefacts.findings import FlawKind, shown
from forestay.artefacts.pickle_machine import MARK, MAX_TEXT_BYTES, OPAQUE, Machine, Reading, Symbol
from forestay.artefacts.source import Broken, Source, broken

MAX_OPCODES = 4_000_000


class _Opcode(Protocol):
    name: str
    proto: int


_OPCODES = cast("dict[str, _Opcode]", getattr(pickletools, "code2op"))  # noqa: B009 - not in the stub


def walk(source: Source, offset: int = 0, *, persistent: bool = False) -> Reading:
    """Walk one pickle from `offset`; `persistent` ids are expected inside torch's archives only."""
    machine = Machine(source, offset, persistent=persistent)
    try:
        end = _run(machine)
    except Broken as stop:
        machine.flaws.append(stop.flaw)
        end = None
    return machine.reading(end)


def _run(machine: Machine) -> int:
    where = ""
    for _ in range(MAX_OPCODES):
        code, where = machine.begin()
        opcode = _OPCODES.get(code)
        if opcode is None:
            broken(FlawKind.PICKLE_UNCLEAR, where, f"{shown(code)} is no opcode")
        if opcode.name == "STOP":
            return machine.stop()
        machine.check(opcode.name, opcode.proto)
        _STEPS[opcode.name](machine)
    return broken(FlawKind.LIMIT, where, f"more than {MAX_OPCODES} opcodes")


Step = Callable[[Machine], None]


def _skip(length: int) -> Step:
    def step(machine: Machine) -> None:
        machine.number_of(length)
        machine.push(OPAQUE)

    return step


def _line_value(machine: Machine) -> None:
    machine.line()
    machine.push(OPAQUE)


def _quoted(machine: Machine) -> None:
    """STRING: a Python literal of old; its value may be a name, so one that is not plainly quoted is opaque."""
    text = machine.line().strip()
    plain = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" and "\\" not in text
    machine.push(Symbol("text", text[1:-1]) if plain else OPAQUE)


def _unicode_line(machine: Machine) -> None:
    text = machine.line()
    machine.push(Symbol("text", text) if "\\" not in text else OPAQUE)


def _pop(machine: Machine) -> None:
    machine.pop()  # an object, or a mark that is on top


def _pop_mark(machine: Machine) -> None:
    machine.pop_to_mark()


def _persistent_line(machine: Machine) -> None:
    machine.line()
    machine.persistent(None)


def _collect(machine: Machine) -> None:
    machine.pop_to_mark()
    machine.push(OPAQUE)


def _tuple_of(count: int) -> Step:
    def step(machine: Machine) -> None:
        items = tuple(machine.pop_object() for _ in range(count))[::-1]
        machine.push_items(items)

    return step


def _append(machine: Machine) -> None:
    machine.pop_object()
    machine.top()


def _extend(machine: Machine) -> None:
    machine.pop_to_mark()
    machine.top()


def _set_item(machine: Machine) -> None:
    machine.pop_object()
    machine.pop_object()
    machine.top()


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.push(machine.import_name(module, machine.line()))


def _inst(machine: Machine) -> None:
    module = machine.line()
    name = machine.import_name(module, machine.line())  # before the mark is looked for, as pickle.py does
    machine.pop_to_mark()
    machine.call(name, OPAQUE)


def _obj(machine: Machine) -> None:
    items = machine.pop_to_mark()
    if not items:
        broken(FlawKind.PICKLE_UNCLEAR, "OBJ", "builds nothing")
    machine.call(items[0], OPAQUE)


def _reduce(machine: Machine) -> None:
    arguments = machine.pop_object()
    machine.call(machine.pop_object(), arguments)


def _new_object_ex(machine: Machine) -> None:
    machine.pop_object()
    _reduce(machine)


def _long(width: int) -> Step:
    def step(machine: Machine) -> None:
        length = machine.number_of(width, signed=width == 4)
        if not 0 <= length <= MAX_TEXT_BYTES:
            broken(FlawKind.LIMIT, "LONG", f"a number of {length} bytes")
        machine.push_number(machine.number_of(length, signed=True))

    return step


def _unreadable(what: str) -> Step:
    def step(machine: Machine) -> None:
        machine.unclear(what)
        machine.push(OPAQUE)

    return step


def _push(symbol: Symbol) -> Step:
    return lambda machine: machine.push(symbol)


_OUT_OF_BAND = "takes bytes from outside the file"
_STEPS: Mapping[str, Step] = {
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _push(OPAQUE)),
    "EMPTY_TUPLE": lambda machine: machine.push_items(()),
    "MARK": _push(MARK),
    **dict.fromkeys(("INT", "LONG", "FLOAT"), _line_value),
    "BININT": _skip(4),
    "BININT1": _skip(1),
    "BININT2": _skip(2),
    "BINFLOAT": _skip(8),
    "LONG1": _long(1),
    "LONG4": _long(4),
    "STRING": _quoted,
    "UNICODE": _unicode_line,
    "BINSTRING": lambda machine: machine.sized(4, text=True),
    "SHORT_BINSTRING": lambda machine: machine.sized(1, text=True),
    "SHORT_BINUNICODE": lambda machine: machine.sized(1, text=True),
    "BINUNICODE": lambda machine: machine.sized(4, text=True),
    "BINUNICODE8": lambda machine: machine.sized(8, text=True),
    "SHORT_BINBYTES": lambda machine: machine.sized(1, text=False),
    "BINBYTES": lambda machine: machine.sized(4, text=False),
    "BINBYTES8": lambda machine: machine.sized(8, text=False),
    "BYTEARRAY8": lambda machine: machine.sized(8, text=False),
    "NEXT_BUFFER": _unreadable(_OUT_OF_BAND),
    "READONLY_BUFFER": lambda machine: machine.unclear(_OUT_OF_BAND),
    "TUPLE": lambda machine: machine.push_items(machine.pop_to_mark()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    **dict.fromkeys(("LIST", "DICT", "FROZENSET"), _collect),
    "APPEND": _append,
    "SETITEM": _set_item,
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), _extend),
    "POP": _pop,
    "DUP": lambda machine: machine.push(machine.top()),
    "POP_MARK": _pop_mark,
    "PUT": lambda machine: machine.remember(_decimal(machine)),
    "BINPUT": lambda machine: machine.remember(machine.number_of(1)),
    "LONG_BINPUT": lambda machine: machine.remember(machine.number_of(4)),
    "MEMOIZE": lambda machine: machine.remember_next(),
    "GET": lambda machine: machine.recall(_decimal(machine)),
    "BINGET": lambda machine: machine.recall(machine.number_of(1)),
    "LONG_BINGET": lambda machine: machine.recall(machine.number_of(4)),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda machine: machine.import_from_stack(),
    "INST": _inst,
    "OBJ": _obj,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_ex,
    "BUILD": lambda machine: machine.build(),
    "PERSID": _persistent_line,
    "BINPERSID": lambda machine: machine.persistent(machine.pop_object()),
    "EXT1": lambda machine: machine.extension(1),
    "EXT2": lambda machine: machine.extension(2),
    "EXT4": lambda machine: machine.extension(4),
    "PROTO": lambda machine: machine.declare(),
    "FRAME": lambda machine: machine.frame(),
}


def _decimal(machine: Machine) -> int:
    text = machine.line()
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        broken(FlawKind.PICKLE_UNCLEAR, "memo", f"{shown(text)} is no index")
    return int(text)
