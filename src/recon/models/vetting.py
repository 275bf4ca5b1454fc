"""What a checkpoint would call, looked at before torch reads it; numpy's numbers, made safely.

`weights_only=True` runs nothing of a file's own, but calls what makes arrays of any size, and puts
any number into sets and dictionaries: a file of 300 bytes took all memory, one of 1 MB all time.
"""

import pickle
import pickletools
import re
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

STREAMS = 5
"""Pickles that a file of torch before 1.6 begins with."""
MAGIC = 0x1950A86A20F9469CFC6C
"""What such a file begins with, a number of 77 bits."""
DEEP = 1000
"""Brackets in brackets: no checkpoint comes near."""
MOST = 2**20
"""Steps of the longest pickle that is read: a weight takes some thirty."""
KEYS = ("str", "int", "int_or_bool", "bool", "None", "float", "bytes", "bytes_or_str")
"""What a dictionary may be indexed by, as pickletools call the kinds."""
PUTS, GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
NUMBERS = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SCALAR = re.compile(r"numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode")
REBUILT = re.compile(
    r"torch\._utils _rebuild_(tensor(_v[23])?|parameter|qtensor|sparse_tensor|"
    r"meta_tensor_no_storage)|torch\.serialization _get_layout|collections OrderedDict|"
    r"torch \w+Storage|torch\.storage (Untyped|Typed)Storage|torch (Size|device)"
)


class NumberType:
    """The type of one of numpy's numbers, while a checkpoint is being read."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or name.lstrip("<>=|") not in NUMBERS:
            raise pickle.UnpicklingError(f"numbers of the type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def number(kind: NumberType, raw: bytes) -> Any:
    """Return one of numpy's numbers."""
    if not isinstance(kind, NumberType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("numpy holds more than numbers")
    return np.frombuffer(raw, kind.dtype, 1)[0]


SAFE: list[Any] = [
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
    (NumberType, "numpy.dtype"),
]
"""What official files need beside tensors, for `torch.serialization.safe_globals`."""


def check_calls(path: Path) -> None:
    """Raise UnpicklingError for a checkpoint that calls what no weights need; nothing is run."""
    if is_archive(path):  # its part as torch finds it, whose ways with names are not zipfile's
        _check(BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
        return
    with path.open("rb") as file:
        for _ in range(STREAMS):
            _check(file)


def is_archive(path: Path) -> bool:
    """Tell whether torch reads a checkpoint as a zip archive: by how it begins."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check(file: BufferedIOBase) -> None:
    """Look at the codes of one pickle, up to its end."""
    depth, kinds = 0, _Kinds()
    for number, (code, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
        if number > MOST:
            raise pickle.UnpicklingError(f"it takes more than {MOST:,} steps")
        kinds.step(code, argument)
        if code.name == "GLOBAL" and not _known(str(argument)):
            name = str(argument).replace(" ", ".")
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {name}")
        # Numbers of many digits can all fall into one place of a dictionary.
        if type(argument) is int and argument.bit_length() > 64 and argument != MAGIC:
            raise pickle.UnpicklingError("it holds a number of more than 64 bits")
        depth = depth + 1 if code.name in ("TUPLE1", "TUPLE2", "TUPLE3") else 0
        if depth > DEEP:
            raise pickle.UnpicklingError("its parts lie in one another without end")


class _Kinds:
    """What kinds of things lie on the stack of a pickle that is being read: codes tell them.

    Raises UnpicklingError for a dictionary that is indexed by anything but texts and numbers:
    others can all fall into one place of it, and looking up then takes without end.
    """

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.memo: dict[int, str] = {}

    def step(self, code: pickletools.OpcodeInfo, argument: Any) -> None:
        if code.name in ("SETITEM", "SETITEMS", "DICT"):
            self._check_keys(1 if code.name == "SETITEM" else 0)
        if code.name in PUTS:
            self.memo[len(self.memo) if argument is None else int(argument)] = self._top()
        made = [kind.name for kind in code.stack_after]
        if code.name in GETS:
            made = [self.memo.get(int(argument), "any")]
        elif code.name == "DUP":
            made = [self._top()] * 2
        before = [kind.name for kind in code.stack_before]
        if "mark" in before:
            del self.stack[self._mark() :]
            before = before[: before.index("mark")]
        if before:
            del self.stack[-len(before) :]
        self.stack += made

    def _top(self) -> str:
        return self.stack[-1] if self.stack else "any"

    def _mark(self) -> int:
        """Return where the last mark lies, 0 without one: torch then refuses the pickle."""
        rows = range(len(self.stack) - 1, -1, -1)
        return next((row for row in rows if self.stack[row] == "mark"), 0)

    def _check_keys(self, single: int) -> None:
        keys = self.stack[-2:-1] if single else self.stack[self._mark() + 1 :: 2]
        if wrong := [kind for kind in keys if kind not in KEYS]:
            raise pickle.UnpicklingError(f"a dictionary is indexed by a thing of kind {wrong[0]!r}")


def _known(name: str) -> bool:
    """Tell whether a checkpoint of weights may name this: `<module> <name>`."""
    module, _, own = name.partition(" ")
    kind = module == "torch" and isinstance(getattr(torch, own, None), torch.dtype)
    return kind or bool(REBUILT.fullmatch(name) or SCALAR.fullmatch(name))
