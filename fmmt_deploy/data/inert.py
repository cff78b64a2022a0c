"""A pickle machine that runs nothing: objects become inert `Node`s, classes and functions become names.

It follows the opcodes of CPython's own `pickle._Unpickler` (the pure-Python one; the C one can be made to allocate
gigabytes by one opcode), from which it takes only those that handle plain values. Every opcode that would look a name
up, call it, or set an attribute is replaced, so no class of the pickle is imported, called or even looked at.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

__all__ = ["ByteSource", "Constructor", "Global", "InertUnpickler", "Node", "plain_key"]

MAX_READS = 64_000_000
"""More reads than this make a pickle absurd: MELD's largest, with every face path, has about 8 million."""

MAX_MEMO = 1 << 32
MAX_KEY = (1 << 61) - 1  # larger integers could all have the same hash
VIEW_BYTES = 1 << 16  # blocks at least this large are mapped, smaller ones copied

_PLAIN_OPCODES = (
    "PROTO NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 "
    "TUPLE3 EMPTY_LIST LIST EMPTY_DICT EMPTY_SET MARK POP POP_MARK DUP GET BINGET LONG_BINGET STOP "
    "GLOBAL STACK_GLOBAL"  # these two end in our `find_class`
)
_RENAMED = {"copy_reg": "copyreg", "__builtin__": "builtins"}  # Python 2's names


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that a pickle refers to, by its name only, as `module.name`."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """An object of a pickle, as data.

    Attributes:
        name: Its class (or the function that would have made it) as `module.name`.
        args: What it would have been called with.
        kwargs: The same, by name.
        state: What would have been set on it: of a `torch.nn.Module` a dict with `_parameters`, `_buffers`, `_modules`
        items: What would have been appended or added to it.
        pairs: Key and value of what would have been set as its items.
    """

    name: str
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = field(default_factory=dict)
    state: object = None
    items: list[object] = field(default_factory=list)
    pairs: list[tuple[object, object]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


_KEYS = (str, int, float, bool, bytes, type(None), Global, Node)


class Constructor(Protocol):
    """Decides what an object of a pickle becomes."""

    def construct(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Return a plain value or a `Node`.

        Raises:
            pickle.UnpicklingError: If the name is not one that may be rebuilt.
        """

    def build(self, node: Node, state: object) -> object:
        """Return what `node` becomes once its state is known (itself, if it stays a node)."""


class ByteSource:
    """Reads a buffer from front to back; large blocks come as views, so that a mapped file costs no memory."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer, self.position, self._reads = buffer, 0, 0

    def read(self, count: int) -> bytes | memoryview:
        """Return exactly `count` bytes.

        Raises:
            EOFError: If there are fewer.
            pickle.UnpicklingError: If the pickle has absurdly many parts.
        """
        start, end = self.position, self.position + count
        self._reads += 1
        if end > len(self.buffer):
            raise EOFError(f"{count} bytes are announced at byte {start}, {len(self.buffer) - start} are left")
        if self._reads > MAX_READS:
            raise pickle.UnpicklingError(f"it has more than {MAX_READS} parts")
        self.position = end
        block = self.buffer[start:end]
        return block if count >= VIEW_BYTES else block.tobytes()

    def readline(self) -> bytes:
        """Return the bytes up to and with the next line feed.

        Raises:
            EOFError: If there is none.
        """
        for start in range(self.position, len(self.buffer), VIEW_BYTES):
            found = self.buffer[start : start + VIEW_BYTES].tobytes().find(b"\n")
            if found >= 0:
                return bytes(self.read(start + found + 1 - self.position))
        raise EOFError(f"a line at byte {self.position} does not end")


def _refuse_persistent(_: object) -> object:
    raise pickle.UnpicklingError("it refers to data outside of itself")


class InertUnpickler(pickle._Unpickler):
    """Reads one pickle from a source.

    Args:
        source: Where to read; stays behind the pickle's end afterwards.
        constructor: What objects become.
        persistent_load: What references to outside data (torch's storages) become; refused by default.
    """

    stack: list[Any]
    memo: dict[int, Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (getattr(pickle, name) for name in _PLAIN_OPCODES.split())
    }

    def __init__(
        self,
        source: ByteSource,
        constructor: Constructor,
        persistent_load: Callable[[object], object] = _refuse_persistent,
    ) -> None:
        super().__init__(source, encoding="latin1")  # type: ignore[arg-type]  # large blocks are views, not bytes
        self._source, self._constructor, self._persistent = source, constructor, persistent_load
        self._slots: dict[int, list[int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        return Global(f"{_RENAMED.get(module, module)}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid)

    def _decode_string(self, value: bytes | memoryview) -> str:
        return str(value, "latin1")

    def _frame(self) -> None:
        size = int.from_bytes(self._source.read(8), "little")
        if size > len(self._source.buffer) - self._source.position:
            raise EOFError(f"a frame of {size} bytes is announced, the file is shorter")

    def _bytearray(self) -> None:
        self.append(self._source.read(int.from_bytes(self._source.read(8), "little")))

    def _nothing(self) -> None:
        """READONLY_BUFFER: every block is read-only here."""

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], arguments)

    def _newobj_ex(self) -> None:
        kwargs, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], arguments, kwargs)

    def _inst(self) -> None:
        module, name = self._source.readline()[:-1].decode(), self._source.readline()[:-1].decode()
        arguments = tuple(self.pop_mark())
        self.append(self._made(self.find_class(module, name), arguments))

    def _obj(self) -> None:
        made, *arguments = self.pop_mark()
        self.append(self._made(made, tuple(arguments)))

    def _made(self, made: object, arguments: object, kwargs: object = None) -> object:
        if type(made) is not Global or type(arguments) is not tuple or type(kwargs) not in (dict, type(None)):
            raise pickle.UnpicklingError("it calls something that is not a named class")
        return self._constructor.construct(made.name, arguments, kwargs or {})  # type: ignore[arg-type]

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is dict:
            return  # attributes of an OrderedDict, such as `_metadata` of a state dict
        if type(target) is not Node:
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__}")
        value = self._constructor.build(target, state)
        self.stack[-1] = value
        for slot in self._slots.pop(id(target), []):
            if self.memo[slot] is target:
                self.memo[slot] = value

    def _remember(self, slot: int) -> None:
        value = self.stack[-1]
        if not 0 <= slot < MAX_MEMO:
            raise pickle.UnpicklingError(f"it uses the memo slot {slot}")
        self.memo[slot] = value
        if type(value) is Node:
            self._slots.setdefault(id(value), []).append(slot)

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _extend(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) not in (list, Node):
            raise pickle.UnpicklingError(f"it appends to a {type(target).__name__}")
        (target.items if type(target) is Node else target).extend(values)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, flat: list[object]) -> None:
        pairs, target = _pairs(flat), self.stack[-1]
        if type(target) is Node:
            target.pairs.extend(pairs)
        elif type(target) is dict:
            target.update((plain_key(key), value) for key, value in pairs)
        else:
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")

    def _add(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is set:
            target.update(map(plain_key, values))
        else:
            self._extend(values)

    def _dict(self) -> None:
        pairs = _pairs(self.pop_mark())
        self.append({plain_key(key): value for key, value in pairs})

    def _frozenset(self) -> None:
        values = self.pop_mark()
        self.append(frozenset(map(plain_key, values)))

    dispatch |= {
        pickle.FRAME[0]: _frame,
        pickle.BYTEARRAY8[0]: _bytearray,
        pickle.READONLY_BUFFER[0]: _nothing,
        pickle.PERSID[0]: lambda self: self.append(self._persistent(self._source.readline()[:-1].decode())),
        pickle.BINPERSID[0]: lambda self: self.append(self._persistent(self.stack.pop())),
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _newobj_ex,
        pickle.INST[0]: _inst,
        pickle.OBJ[0]: _obj,
        pickle.BUILD[0]: _build,
        pickle.MEMOIZE[0]: lambda self: self._remember(len(self.memo)),
        pickle.PUT[0]: lambda self: self._remember(int(self._source.readline()[:-1])),
        pickle.BINPUT[0]: lambda self: self._remember(self._source.read(1)[0]),
        pickle.LONG_BINPUT[0]: lambda self: self._remember(int.from_bytes(self._source.read(4), "little")),
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: lambda self: self._set(self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self._add(self.pop_mark()),
        pickle.DICT[0]: _dict,
        pickle.FROZENSET[0]: _frozenset,
    }


def _pairs(flat: list[object]) -> list[tuple[object, object]]:
    if len(flat) % 2:
        raise pickle.UnpicklingError("it has a key without a value")
    return list(zip(flat[::2], flat[1::2], strict=True))


def plain_key(value: object) -> object:
    """Return `value` if hashing it is cheap: nested tuples that share their parts would take for ever.

    Raises:
        pickle.UnpicklingError: If it is anything but text, a number, a name, a node, or a tuple of these.
    """
    parts = value if type(value) is tuple else (value,)
    if not all(type(part) in _KEYS for part in parts) or any(type(n) is int and abs(n) >= MAX_KEY for n in parts):
        raise pickle.UnpicklingError("it has a dictionary key or set member that is not a plain value")
    return value
