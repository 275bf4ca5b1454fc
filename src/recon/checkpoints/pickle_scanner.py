"""What a checkpoint would call, looked at before torch reads it; numpy's numbers, made safely.

`weights_only=True` runs nothing of a file's own, but calls what makes arrays of any size, and puts
any number into sets and dictionaries: a file of 300 bytes took all memory, one of 1 MB all time.
"""

import pickle
import pickletools
import re
from collections.abc import Iterator
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

NUM_LEGACY_PICKLES = 5
"""Pickles that a file of torch before 1.6 begins with."""
LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""What such a file begins with, a number of 77 bits."""
MAX_TUPLE_NESTING = 1000
"""Brackets in brackets: no checkpoint comes near."""
MAX_PICKLE_OPS = 2**20
"""Steps of the longest pickle that is read: a weight takes some thirty."""
ALLOWED_KEY_KINDS = ("str", "int", "int_or_bool", "bool", "None", "float", "bytes", "bytes_or_str")
"""What a dictionary may be indexed by, as pickletools call the kinds."""
MEMO_PUT_OPS, MEMO_GET_OPS = (
    ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    ("GET", "BINGET", "LONG_BINGET"),
)
DICT_OPS = ("SETITEM", "SETITEMS", "DICT")


def _effect(code: pickletools.OpcodeInfo) -> tuple[int, bool, tuple[str, ...]]:
    """Return how many things a code takes off the stack, whether all above a mark, what it puts."""
    before = [kind.name for kind in code.stack_before]
    marked = "mark" in before
    taken = before.index("mark") if marked else len(before)
    return taken, marked, tuple(kind.name for kind in code.stack_after)


STACK_EFFECTS = {code.name: _effect(code) for code in pickletools.opcodes}
ALLOWED_NUMPY_DTYPES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
ALLOWED_NUMPY_GLOBALS = re.compile(r"numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode")
ALLOWED_TORCH_GLOBALS = re.compile(
    r"torch\._utils _rebuild_(tensor(_v[23])?|parameter|qtensor|sparse_tensor|"
    r"meta_tensor_no_storage)|torch\.serialization _get_layout|collections OrderedDict|"
    r"torch \w+Storage|torch\.storage (Untyped|Typed)Storage|torch (Size|device)"
)


class SafeDtype:
    """The type of one of numpy's numbers, while a checkpoint is being read."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or name.lstrip("<>=|") not in ALLOWED_NUMPY_DTYPES:
            raise pickle.UnpicklingError(f"numbers of the type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def make_numpy_scalar(dtype: SafeDtype, raw: bytes) -> Any:
    """Return one of numpy's numbers."""
    if not isinstance(dtype, SafeDtype) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("numpy holds more than numbers")
    return np.frombuffer(raw, dtype.dtype, 1)[0]


SAFE_GLOBALS: list[Any] = [
    (make_numpy_scalar, "numpy.core.multiarray.scalar"),
    (make_numpy_scalar, "numpy._core.multiarray.scalar"),
    (SafeDtype, "numpy.dtype"),
]
"""What official files need beside tensors, for `torch.serialization.safe_globals`."""


def scan_pickle(path: Path) -> None:
    """Raise UnpicklingError for a checkpoint that calls what no weights need; nothing is run."""
    if is_zip_archive(path):  # its part as torch finds it, whose ways with names are not zipfile's
        _check(BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
        return
    with path.open("rb") as file:
        for _ in range(NUM_LEGACY_PICKLES):
            _check(file)


def is_zip_archive(path: Path) -> bool:
    """Tell whether torch reads a checkpoint as a zip archive: by how it begins."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check(file: BufferedIOBase) -> None:
    """Look at the codes of one pickle, up to its end."""
    depth = 0
    for number, (code, argument) in enumerate(_Kinds().follow(file)):
        if number > MAX_PICKLE_OPS:
            raise pickle.UnpicklingError(f"it takes more than {MAX_PICKLE_OPS:,} steps")
        if code.name == "GLOBAL" and not _known(str(argument)):
            name = str(argument).replace(" ", ".")
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {name}")
        # Numbers of many digits can all fall into one place of a dictionary.
        if type(argument) is int and argument.bit_length() > 64 and argument != LEGACY_MAGIC_NUMBER:
            raise pickle.UnpicklingError("it holds a number of more than 64 bits")
        depth = depth + 1 if code.name in ("TUPLE1", "TUPLE2", "TUPLE3") else 0
        if depth > MAX_TUPLE_NESTING:
            raise pickle.UnpicklingError("its parts lie in one another without end")


class _Kinds:
    """What kinds of things lie on the stack of a pickle that is being read: codes tell them.

    Raises UnpicklingError for a dictionary that is indexed by anything but texts and numbers:
    others can all fall into one place of it, and looking up then takes without end.
    """

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.marks: list[int] = []
        self.memo: dict[int, str] = {}

    def follow(self, file: BufferedIOBase) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
        """Yield the codes of one pickle and their arguments."""
        for code, told, _ in pickletools.genops(cast(Any, file)):
            argument: Any = told
            name, stack = code.name, self.stack
            taken, marked, made = STACK_EFFECTS[name]
            start = (
                self.marks.pop() if marked and self.marks else 0
            )  # torch refuses one without a mark
            if name in DICT_OPS:
                self._check_keys(stack[start + 1 :: 2] if marked else stack[-2:-1])
            top = (stack or ["any"])[-1]
            if name in MEMO_PUT_OPS:
                self.memo[len(self.memo) if argument is None else int(argument)] = top
            elif name in MEMO_GET_OPS:
                made = (self.memo.get(int(argument), "any"),)
            elif name == "DUP":
                made = (top, top)
            if marked:
                del stack[start:]
            elif name == "MARK":
                self.marks.append(len(stack))
            del stack[max(0, len(stack) - taken) :]
            stack += made
            yield code, argument

    def _check_keys(self, keys: list[str]) -> None:
        if wrong := [kind for kind in keys if kind not in ALLOWED_KEY_KINDS]:
            raise pickle.UnpicklingError(f"a dictionary is indexed by a thing of kind {wrong[0]!r}")


def _known(name: str) -> bool:
    """Tell whether a checkpoint of weights may name this: `<module> <name>`."""
    module, _, own = name.partition(" ")
    kind = module == "torch" and isinstance(getattr(torch, own, None), torch.dtype)
    return kind or bool(
        ALLOWED_TORCH_GLOBALS.fullmatch(name) or ALLOWED_NUMPY_GLOBALS.fullmatch(name)
    )
