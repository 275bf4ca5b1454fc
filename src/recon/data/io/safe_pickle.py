"""Read pickles that hold plain arrays, and run nothing: what else they name is refused.

Pickles are programs. Three of the field's formats are pickles all the same (.dat, .pkl, object
.npy), so they are read by an unpickler that knows arrays, numbers, text and their containers.
It is Python's own, written in Python: the C one allocates what a file asks for.
"""

import pickle
import struct
from collections.abc import Callable, Iterable
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

ALLOWED_DTYPE_KINDS = "biufUSO"
REFUSED_OPCODES = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2,
    pickle.EXT4, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.PERSID,
    pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip


ALLOWED_KEY_TYPES = (str, bytes, int, float, bool, type(None), np.generic)
"""What a dictionary may be indexed by: looking up other things may take without end."""


MAX_PICKLE_OPS = 2**21
"""Steps of the longest pickle that is read: an array, or a text, takes some ten."""


class RefusedError(ValueError):
    """A pickle names something other than plain arrays."""


class _Counted(dict[int, Any]):
    """What each code of a pickle does, looked up so many times and no more."""

    left = MAX_PICKLE_OPS

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RefusedError(f"more than {MAX_PICKLE_OPS:,} steps")
        return super().__getitem__(code)


class _Type:
    """An array's data type while a pickle is being read: its byte order comes last."""

    def __init__(self, name: Any, *_: Any) -> None:
        found = np.dtype(name) if isinstance(name, str) else None
        if (
            found is None
            or found.kind not in ALLOWED_DTYPE_KINDS
            or (found.kind == "f" and found.itemsize > 8)
        ):
            raise RefusedError(f"data type {name!r:.50}")
        self.dtype = found

    def order(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _plain(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise RefusedError(f"a data type written as {type(kind).__name__}")
    return kind.dtype


def _data(raw: Any, dtype: np.dtype[Any], count: int) -> Any:
    """Return an array's content; raise RefusedError where it does not fit its shape."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
    expected = (list, count) if dtype.hasobject else ((bytes, bytearray), count * dtype.itemsize)
    if not isinstance(raw, expected[0]) or len(raw) != expected[1]:
        raise RefusedError("an array whose content does not fit its shape")
    return raw


def _count(shape: Any) -> int:
    """Return how many values an array of a shape has; raise RefusedError for what is no shape."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if len(sizes) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in sizes):
        raise RefusedError("an array of no shape")
    return prod(sizes)


def _reconstruct(*_: Any) -> np.ndarray:
    return np.empty(0)  # its shape and content follow


def _scalar(kind: Any, raw: Any) -> Any:
    dtype = _plain(kind)
    if dtype.hasobject:
        raise RefusedError("an object as a number")
    return np.frombuffer(_data(raw, dtype, 1), dtype)[0]


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    dtype = _plain(kind)
    if dtype.hasobject:
        raise RefusedError("objects in a buffer")
    return np.frombuffer(_data(raw, dtype, _count(shape)), dtype).reshape(shape, order=order).copy()


def _encode(text: Any, encoding: Any = None) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*content: Any) -> bytes:
    if content:  # old protocols write only the empty ones so
        raise RefusedError("bytes made by a call")
    return b""


def _never(*_: Any) -> Any:
    raise RefusedError("an array's class called as a function")


ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _never,  # an argument of the next; never called itself
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
for _package in ("numpy.core", "numpy._core"):
    ALLOWED_GLOBALS[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    ALLOWED_GLOBALS[f"{_package}.multiarray", "scalar"] = _scalar
    ALLOWED_GLOBALS[f"{_package}.numeric", "_frombuffer"] = _from_buffer


def _holds_more(value: Any) -> bool:
    """Tell whether a value is a container, of which several places could see one."""
    if isinstance(value, np.ndarray):
        return value.dtype.hasobject
    return isinstance(value, list | dict | tuple | set | frozenset)


class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    memo: dict[int, Any]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    def load(self) -> Any:
        self.dispatch = _Counted(type(self).dispatch)  # type: ignore[misc] # its own, which counts
        return super().load()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in ALLOWED_GLOBALS:
            raise RefusedError(f"{module}.{name}")
        return ALLOWED_GLOBALS[module, name]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        known = any(function is found for found in ALLOWED_GLOBALS.values())
        if not known or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that is no array")
        self.stack[-1] = function(*arguments)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Type):
            target.order(state)
        elif isinstance(target, np.ndarray):
            _, shape, kind, fortran, raw = state
            dtype = _plain(kind)
            raw = _data(raw, dtype, _count(shape))
            target.__setstate__(cast(Any, (1, shape, dtype, bool(fortran), raw)))
        else:
            raise RefusedError("a state for something that is no array")

    def _shared(self, value: Any) -> Any:
        """Refuse what may hold itself, or doubles with each step: a tree is as large as its file.

        What comes again may be an array of numbers, a text, a number, or a tuple of those.
        """
        flat = value if isinstance(value, tuple) else (value,)
        if any(_holds_more(part) for part in flat):
            raise RefusedError("one container in several places")
        return value

    def load_get(self) -> None:
        self.append(self._shared(self.memo[int(self.readline()[:-1])]))

    def load_binget(self) -> None:
        self.append(self._shared(self.memo[self.read(1)[0]]))

    def load_long_binget(self) -> None:
        self.append(self._shared(self.memo[struct.unpack("<I", self.read(4))[0]]))

    def load_dup(self) -> None:
        self.append(self._shared(self.stack[-1]))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(((key, value),))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(zip(items[::2], items[1::2], strict=True))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(zip(items[::2], items[1::2], strict=True))

    def _set(self, items: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError("an entry of something that is no dictionary")
        for key, value in items:
            if not isinstance(key, ALLOWED_KEY_TYPES) or (
                type(key) is int and key.bit_length() > 64
            ):
                raise RefusedError(f"a dictionary's key of type {type(key).__name__}")
            target[key] = value

    def load_refused(self) -> None:
        raise RefusedError("objects of a class of their own")

    def load_bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))  # Python's own would fill `size` bytes first

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.GET[0]] = load_get
    dispatch[pickle.BINGET[0]] = load_binget
    dispatch[pickle.LONG_BINGET[0]] = load_long_binget
    dispatch[pickle.DUP[0]] = load_dup
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray
    dispatch[pickle.BUILD[0]] = load_build
    for _code in REFUSED_OPCODES:
        dispatch[_code[0]] = load_refused


def unpickle(file: BufferedIOBase, source: str) -> Any:
    """Read one pickle of plain arrays, numbers, text and their containers.

    Raises ValueError that names the source where it is corrupt or holds anything else; nothing
    that it names is imported or run.
    """
    try:
        return _Unpickler(file, encoding="latin1").load()
    except RefusedError as error:
        raise ValueError(
            f"{source}: refused, it holds {error}, and only plain arrays are read from pickles "
            "(nothing was run): convert it to .npy or .npz where you trust it"
        ) from error
    except Exception as error:
        why = type(error).__name__  # its message may hold what the file made
        raise ValueError(f"{source}: not a readable pickle ({why}): copy it again") from error


def read_pickle(path: Path) -> Any:
    """Read one pickle file of plain arrays; raise ValueError or FileNotFoundError that names it."""
    with path.open("rb") as file:
        return unpickle(file, str(path))
