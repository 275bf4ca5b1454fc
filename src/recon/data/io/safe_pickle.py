"""Read pickles of plain arrays by an unpickler that refuses all other objects and calls.

Unpickling runs code that the file names, but three formats of public data sets are pickles (.dat,
.pkl, object arrays in .npy). Therefore this unpickler accepts only arrays, numbers, text and their
containers. It extends Python's unpickler written in Python: the one in C allocates any size that a
file asks for.
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
"""Kinds of NumPy data types that an array may have."""
REFUSED_OPCODES = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2,
    pickle.EXT4, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.PERSID,
    pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip
"""Opcodes that make objects of classes, sets, and references outside the pickle."""
ALLOWED_KEY_TYPES = (str, bytes, int, float, bool, type(None), np.generic)
"""Types of dictionary keys; hashing and comparing others can take time without limit."""
MAX_PICKLE_OPS = 2**21
"""Maximum number of opcodes in a pickle; an array or a text takes about ten."""


class RefusedError(ValueError):
    """A pickle contains something other than plain arrays."""


class _CountedDispatch(dict[int, Any]):
    """The handler of each opcode; raises RefusedError after `MAX_PICKLE_OPS` lookups."""

    ops_left = MAX_PICKLE_OPS

    def __getitem__(self, opcode: int) -> Any:
        self.ops_left -= 1
        if self.ops_left < 0:
            raise RefusedError(f"more than {MAX_PICKLE_OPS:,} opcodes")
        return super().__getitem__(opcode)


class _DType:
    """An array's data type during unpickling, when its byte order is set after its creation."""

    def __init__(self, name: Any, *_: Any) -> None:
        dtype = np.dtype(name) if isinstance(name, str) else None
        if (
            dtype is None
            or dtype.kind not in ALLOWED_DTYPE_KINDS
            or (dtype.kind == "f" and dtype.itemsize > 8)
        ):
            raise RefusedError(f"data type {name!r:.50}")
        self.dtype = dtype

    def set_byte_order(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _get_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _DType):
        raise RefusedError(f"a data type written as {type(dtype).__name__}")
    return dtype.dtype


def _check_array_content(content: Any, dtype: np.dtype[Any], count: int) -> Any:
    """Return an array's content; raise RefusedError if its size does not match the shape."""
    if isinstance(content, str):  # Python 2 wrote bytes as text
        content = content.encode("latin1")
    expected = (list, count) if dtype.hasobject else ((bytes, bytearray), count * dtype.itemsize)
    if not isinstance(content, expected[0]) or len(content) != expected[1]:
        raise RefusedError("an array whose content does not match its shape")
    return content


def _count_elements(shape: Any) -> int:
    """Return the number of elements of an array; raise RefusedError for an invalid shape."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if len(sizes) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in sizes):
        raise RefusedError("an array of an invalid shape")
    return prod(sizes)


def _make_array(*_: Any) -> np.ndarray:
    return np.empty(0)  # a following BUILD opcode sets its shape and content


def _make_scalar(dtype: Any, content: Any) -> Any:
    scalar_dtype = _get_dtype(dtype)
    if scalar_dtype.hasobject:
        raise RefusedError("an object as a number")
    return np.frombuffer(_check_array_content(content, scalar_dtype, 1), scalar_dtype)[0]


def _make_array_from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    array_dtype = _get_dtype(dtype)
    if array_dtype.hasobject:
        raise RefusedError("objects in a buffer")
    buffer = _check_array_content(content, array_dtype, _count_elements(shape))
    return np.frombuffer(buffer, array_dtype).reshape(shape, order=order).copy()


def _encode_text(text: Any, encoding: Any = None) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _make_empty_bytes(*content: Any) -> bytes:
    if content:  # old protocols write only empty bytes by a call
        raise RefusedError("bytes made by a call")
    return b""


def _refuse_call(*_: Any) -> Any:
    raise RefusedError("an array's class called as a function")


ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _refuse_call,  # only an argument of `_reconstruct`
    ("_codecs", "encode"): _encode_text,
    ("__builtin__", "bytes"): _make_empty_bytes,
    ("builtins", "bytes"): _make_empty_bytes,
}
"""Module and name of everything that a pickle may use, with the function that is called instead."""
for _package in ("numpy.core", "numpy._core"):
    ALLOWED_GLOBALS[f"{_package}.multiarray", "_reconstruct"] = _make_array
    ALLOWED_GLOBALS[f"{_package}.multiarray", "scalar"] = _make_scalar
    ALLOWED_GLOBALS[f"{_package}.numeric", "_frombuffer"] = _make_array_from_buffer


def _is_container(value: Any) -> bool:
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
        self.dispatch = _CountedDispatch(type(self).dispatch)  # type: ignore[misc]
        return super().load()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in ALLOWED_GLOBALS:
            raise RefusedError(f"{module}.{name}")
        return ALLOWED_GLOBALS[module, name]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        is_allowed = any(function is allowed for allowed in ALLOWED_GLOBALS.values())
        if not is_allowed or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that is not an array")
        self.stack[-1] = function(*arguments)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _DType):
            target.set_byte_order(state)
        elif isinstance(target, np.ndarray):
            _, shape, wrapped_dtype, is_fortran, content = state
            dtype = _get_dtype(wrapped_dtype)
            content = _check_array_content(content, dtype, _count_elements(shape))
            target.__setstate__(cast(Any, (1, shape, dtype, bool(is_fortran), content)))
        else:
            raise RefusedError("a state for something that is not an array")

    def _check_reused(self, value: Any) -> Any:
        """Return a value that is used again; raise RefusedError for a container.

        Without shared containers the content is a tree, and no larger than its file. Arrays of
        numbers, texts, numbers and tuples of these may be shared.
        """
        parts = value if isinstance(value, tuple) else (value,)
        if any(_is_container(part) for part in parts):
            raise RefusedError("one container in several places")
        return value

    def load_get(self) -> None:
        self.append(self._check_reused(self.memo[int(self.readline()[:-1])]))

    def load_binget(self) -> None:
        self.append(self._check_reused(self.memo[self.read(1)[0]]))

    def load_long_binget(self) -> None:
        self.append(self._check_reused(self.memo[struct.unpack("<I", self.read(4))[0]]))

    def load_dup(self) -> None:
        self.append(self._check_reused(self.stack[-1]))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items(((key, value),))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set_items(zip(items[::2], items[1::2], strict=True))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(zip(items[::2], items[1::2], strict=True))

    def _set_items(self, items: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError("an entry of something that is not a dictionary")
        for key, value in items:
            if not isinstance(key, ALLOWED_KEY_TYPES) or (
                type(key) is int and key.bit_length() > 64
            ):
                raise RefusedError(f"a dictionary key of type {type(key).__name__}")
            target[key] = value

    def load_refused(self) -> None:
        raise RefusedError("objects of other classes, or sets")

    def load_bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        # The inherited method would allocate `size` bytes before reading.
        self.append(bytearray(self.read(size)))

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
    for _opcode in REFUSED_OPCODES:
        dispatch[_opcode[0]] = load_refused


def unpickle(file: BufferedIOBase, source: str) -> Any:
    """Read one pickle of plain arrays, numbers, text and their containers.

    Raises ValueError that names `source` if it is damaged or contains anything else. No code
    that it names is imported or run.
    """
    try:
        return _Unpickler(file, encoding="latin1").load()
    except RefusedError as error:
        raise ValueError(
            f"{source}: refused, it contains {error}, but only plain arrays are read from pickles "
            "(nothing was run): if you trust it, convert it to .npy or .npz"
        ) from error
    except Exception as error:
        reason = type(error).__name__  # its message may contain objects of the pickle
        raise ValueError(
            f"{source}: not a readable pickle ({reason}): the file may be damaged or incomplete, "
            "copy it again"
        ) from error


def read_pickle(path: Path) -> Any:
    """Read one pickle file of plain arrays; raise ValueError or FileNotFoundError that names it."""
    with path.open("rb") as file:
        return unpickle(file, str(path))
