"""Scan a checkpoint's pickle opcodes before torch.load sees them.

`torch.load(weights_only=True)` executes no code of a file, but a file may still exhaust memory or
not finish loading. The scanner allows only what weights need. This module also creates the NumPy
scalars of a checkpoint.
"""

import pickle
import pickletools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from io import BufferedIOBase, BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

NUM_LEGACY_PICKLES = 5
"""Number of pickles at the start of a file written by torch before 1.6."""
LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First value of such a file, a number of 77 bits."""
MAX_NESTING = 1000
"""Maximum nesting depth of containers; real checkpoints have a few levels."""
MAX_PICKLE_OPS = 2**20
"""Maximum number of opcodes in a pickle; a weight needs about thirty."""
ALLOWED_KEY_KINDS = ("str", "int", "int_or_bool", "bool", "None", "float", "bytes", "bytes_or_str")
"""Kinds of dictionary keys that are allowed, by the names of pickletools."""
MEMO_PUT_OPS, MEMO_GET_OPS = (
    ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    ("GET", "BINGET", "LONG_BINGET"),
)
DICT_OPS = ("SETITEM", "SETITEMS", "DICT")
CHANGE_OPS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that put values into the value below them on the stack."""


def _get_stack_effect(opcode: pickletools.OpcodeInfo) -> tuple[int, bool, tuple[str, ...]]:
    """Return how many values an opcode pops, whether it pops to a mark, and the kinds it pushes."""
    popped = [kind.name for kind in opcode.stack_before]
    pops_to_mark = "mark" in popped
    num_popped = popped.index("mark") if pops_to_mark else len(popped)
    return num_popped, pops_to_mark, tuple(kind.name for kind in opcode.stack_after)


STACK_EFFECTS = {opcode.name: _get_stack_effect(opcode) for opcode in pickletools.opcodes}
ALLOWED_NUMPY_DTYPES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
ALLOWED_NUMPY_GLOBALS = re.compile(r"numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode")
ALLOWED_TORCH_GLOBALS = re.compile(
    r"torch\._utils _rebuild_(tensor(_v[23])?|parameter|qtensor|sparse_tensor|"
    r"meta_tensor_no_storage)|torch\.serialization _get_layout|collections OrderedDict|"
    r"torch \w+Storage|torch\.storage (Untyped|Typed)Storage|torch (Size|device)"
)


class SafeDtype:
    """Replacement for `numpy.dtype` while a checkpoint is loaded: plain numbers only."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or name.lstrip("<>=|") not in ALLOWED_NUMPY_DTYPES:
            raise pickle.UnpicklingError(f"NumPy type {name!r} is not allowed")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def make_numpy_scalar(dtype: SafeDtype, raw: bytes) -> Any:
    """Return a NumPy scalar from its type and its bytes."""
    if not isinstance(dtype, SafeDtype) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a NumPy value is not a plain number")
    return np.frombuffer(raw, dtype.dtype, 1)[0]


SAFE_GLOBALS: list[Any] = [
    (make_numpy_scalar, "numpy.core.multiarray.scalar"),
    (make_numpy_scalar, "numpy._core.multiarray.scalar"),
    (SafeDtype, "numpy.dtype"),
]
"""Globals of official files besides tensors, for `torch.serialization.safe_globals`."""


def scan_pickle(path: Path) -> None:
    """Raise UnpicklingError for a checkpoint with opcodes that weights do not need.

    Nothing in the file is executed.
    """
    if is_zip_archive(path):  # torch resolves the names of entries differently from zipfile
        _check_opcodes(BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
        return
    with path.open("rb") as file:
        for _ in range(NUM_LEGACY_PICKLES):
            _check_opcodes(file)


def read_pickle_texts(path: Path) -> list[str]:
    """Return the texts in a checkpoint's pickle, such as the names of weights, up to an error.

    Nothing in the file is executed.
    """
    texts: list[str] = []
    with suppress(Exception):  # the file may be damaged in any way
        if is_zip_archive(path):
            file: Any = BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))
        else:
            file = path.open("rb")
        with file:
            for _ in range(NUM_LEGACY_PICKLES):
                opcodes = islice(pickletools.genops(file), MAX_PICKLE_OPS)
                texts += [text for _, text, _ in opcodes if isinstance(text, str)]
    return texts


def is_zip_archive(path: Path) -> bool:
    """Tell whether torch reads a checkpoint as a zip archive, by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_opcodes(file: BufferedIOBase) -> None:
    """Check the opcodes of one pickle, up to its end."""
    values = _StackValues()
    for number, (opcode, argument) in enumerate(values.follow(file)):
        if number > MAX_PICKLE_OPS:
            raise pickle.UnpicklingError(f"its pickle has more than {MAX_PICKLE_OPS:,} opcodes")
        if opcode.name == "GLOBAL" and not _is_allowed_global(str(argument)):
            name = str(argument).replace(" ", ".")
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {name}")
        # Weights do not need such numbers, and loading them may not finish.
        if type(argument) is int and argument.bit_length() > 64 and argument != LEGACY_MAGIC_NUMBER:
            raise pickle.UnpicklingError("it contains a number of more than 64 bits")
    for value in values.created:
        if value.depth is None:
            _measure_depth(value)


class _Value:
    """A value of a pickle: its kind, and the values that it contains."""

    __slots__ = ("contents", "depth", "kind")

    def __init__(self, kind: str, contents: Iterable["_Value"] = ()) -> None:
        self.kind, self.contents = kind, [*contents]
        self.depth: int | None = None
        """Number of levels below; None until `_measure_depth`, -1 while it is measured."""


def _measure_depth(root: _Value) -> int:
    """Return how deeply values are nested in a value.

    Raises UnpicklingError for more than `MAX_NESTING` levels, and for a value in itself.
    """
    root.depth, path = -1, [(root, iter(root.contents))]
    while path:
        value, rest = path[-1]
        item = next((item for item in rest if item.depth is None or item.depth < 0), None)
        if item is not None and item.depth == -1:
            raise pickle.UnpicklingError("one of its values contains itself")
        if item is not None and item.depth is None:
            item.depth = -1
            path.append((item, iter(item.contents)))
        elif item is None:
            value.depth = max((1 + (item.depth or 0) for item in value.contents), default=0)
            path.pop()
        if len(path) > MAX_NESTING + 1 or (value.depth or 0) > MAX_NESTING:
            raise pickle.UnpicklingError(
                f"its values are nested more than {MAX_NESTING:,} levels deep"
            )
    return root.depth


class _StackValues:
    """Track the values on the stack of a pickle, from its opcodes.

    Raises UnpicklingError for a dictionary with keys other than text and numbers: weights do not
    need them, and loading them may not finish.
    """

    def __init__(self) -> None:
        self.stack: list[_Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Value] = {}
        self.created: list[_Value] = []

    def follow(self, file: BufferedIOBase) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
        """Yield the opcodes of one pickle and their arguments."""
        for opcode, argument, _ in pickletools.genops(cast(Any, file)):
            self._apply(opcode.name, argument)
            yield opcode, argument

    def _apply(self, name: str, argument: Any) -> None:
        stack, (num_popped, pops_to_mark, kinds) = self.stack, STACK_EFFECTS[name]
        # torch refuses a pickle that lacks the mark
        start = self.marks.pop() if pops_to_mark and self.marks else 0
        if name in DICT_OPS:
            self._check_keys(stack[start + 1 :: 2] if pops_to_mark else stack[-2:-1])
        if name in MEMO_PUT_OPS:
            number = len(self.memo) if argument is None else int(argument)
            self.memo[number] = stack[-1] if stack else _Value("any")
            return
        if name == "MARK":
            self.marks.append(len(stack))
        items = stack[start:] if pops_to_mark else []
        del stack[len(stack) - len(items) :]
        popped = stack[max(0, len(stack) - num_popped) :]
        del stack[len(stack) - len(popped) :]
        stack += self._push(name, argument, kinds, popped + items)

    def _push(
        self, name: str, argument: Any, kinds: Sequence[str], values: list[_Value]
    ) -> list[_Value]:
        """Return what an opcode pushes after it popped `values`."""
        if name in MEMO_GET_OPS and int(argument) in self.memo:
            return [self.memo[int(argument)]]
        if name == "DUP" and values:
            return values * 2
        if name in CHANGE_OPS and values:
            values[0].contents += values[1:]
            return values[:1]
        pushed = [_Value(kind, values) for kind in kinds]
        self.created += pushed
        return pushed

    def _check_keys(self, keys: list[_Value]) -> None:
        if invalid := [key.kind for key in keys if key.kind not in ALLOWED_KEY_KINDS]:
            raise pickle.UnpicklingError(f"a dictionary has a key of kind {invalid[0]!r}")


def _is_allowed_global(name: str) -> bool:
    """Tell whether a checkpoint may refer to a global, written `<module> <name>`."""
    module, _, attribute = name.partition(" ")
    is_dtype = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    return is_dtype or bool(
        ALLOWED_TORCH_GLOBALS.fullmatch(name) or ALLOWED_NUMPY_GLOBALS.fullmatch(name)
    )
