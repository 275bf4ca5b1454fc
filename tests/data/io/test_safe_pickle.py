"""Pickles are read without running anything: plain arrays come back, all else is refused."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from recon.data.io import safe_pickle
from recon.data.io.arrays import read_npy, read_npz
from recon.data.io.safe_pickle import read_pickle, unpickle
from standins import CALLS, NamesFunction

PLAIN = {
    "list": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1], dtype=np.int32)],
    "scalars": [np.float32(1.5), np.int64(7), np.bool_(True), 3, 2.5, "text", b"bytes", None],
    "nested": {"a": [(np.ones((2, 2), order="F"), 0, 1)], "b": ({"c": np.zeros(0)},)},
    "big_endian": np.arange(4, dtype=">f8"),
    "objects": np.array([{"x": np.arange(3)}, "y"], dtype=object),
    "text_array": np.array(["ab", "c"]),
    "same_array_twice": [np.arange(3)] * 2,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_arrays_come_back(name: str, protocol: int) -> None:
    found = unpickle(io.BytesIO(pickle.dumps(PLAIN[name], protocol)), "x")
    as_lists = (found.tolist(), PLAIN[name].tolist()) if name == "objects" else (found, PLAIN[name])
    np.testing.assert_equal(*as_lists)
    if isinstance(found, np.ndarray):
        assert found.dtype.newbyteorder("=") == PLAIN[name].dtype.newbyteorder("=")


def test_arrays_of_older_numpy_and_of_python_2_come_back() -> None:
    array = np.arange(3, dtype=np.float32)
    new = pickle.dumps(array, 2)
    assert b"numpy._core.multiarray" in new
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(unpickle(io.BytesIO(old), "x"), array)
    # As Python 2 wrote it: the content is a byte string.
    python2 = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x0c" + array.tobytes() + b"tb."
    )
    assert np.array_equal(unpickle(io.BytesIO(python2), "x"), array)


def call(name: str, arguments: bytes) -> bytes:
    """Pickle a call of one of numpy's functions, in protocol 2."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + arguments + b"R."


SCALAR, BUFFER = "numpy.core.multiarray scalar", "numpy.core.numeric _frombuffer"
FLOAT, OBJECT = (b"cnumpy\ndtype\n(X\x02\0\0\0" + kind + b"K\0K\1tR" for kind in (b"f8", b"O8"))
ARRAY = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\1btR"


def array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    """Pickle an array of one dimension from pickled parts and its content."""
    return (
        ARRAY
        + b"(K\1"
        + shape
        + b"\x85"
        + kind
        + b"\x89C"
        + bytes([len(content)])
        + content
        + b"tb."
    )


MATH = b"cmath\nsqrt\n"
REFUSED = {
    "reduce": pickle.dumps(NamesFunction()),
    "inside_a_list": pickle.dumps([np.zeros(3), NamesFunction()]),
    "inside_an_object_array": pickle.dumps(np.array([NamesFunction()], dtype=object)),
    "global": MATH + b".",
    "call": MATH + b"(K\x04tR.",
    "inst": b"(K\x04imath\nsqrt\n.",
    "obj": b"(" + MATH + b"K\x04o.",
    "newobj": b"\x80\x02" + MATH + b"K\x04\x85\x81.",
    "other_numpy": b"cnumpy\nsqrt\n(K\x04tR.",
    "array_as_function": call("numpy ndarray", b"K\x01\x85"),
    "type_as_array": call(SCALAR, b"X\2\0\0\0f8C\x08" + bytes(8) + b"\x86"),
    "object_as_number": call(SCALAR, OBJECT + b"]\x86"),
    "objects_in_a_buffer": call(BUFFER, b"(C\0" + OBJECT + b"K\0X\1\0\0\0Ct"),
    "long_float": call("numpy dtype", b"X\3\0\0\0f16K\0K\1\x87"),
    "unnamed_type": call("numpy dtype", b"K\3\x85"),
    "bytes_from_a_number": call("__builtin__ bytes", b"K\3\x85"),
    "call_of_a_number": b"\x80\x02K\3)R.",
    "state_of_a_list": b"\x80\x02]K\1b.",
    "entry_of_a_list": b"\x80\x02]K\1K\2s.",
    "content_of_another_size": array(b"K\5", FLOAT, bytes(8)),
    "shape_of_text": array(b"X\1\0\0\0a", FLOAT, b""),
    "shape_of_a_long_number": array(b"\x8a\x09" + bytes(8) + b"\1", FLOAT, b""),
    "objects_without_a_list": array(b"K\1", OBJECT, bytes(8)),
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pname\n.",
    "codec": call("_codecs encode", b"X\1\0\0\0xX\5\0\0\0rot13\x86"),
    "key": pickle.dumps({(1, 2): 3}),
    "long_key": pickle.dumps({2**70: 3}),
    "set": pickle.dumps({1, 2}, 2),
    "set_by_code": pickle.dumps({1, 2}, 4),
    "frozen_set": pickle.dumps(frozenset((1, 2)), 4),
}  # fmt: skip
BROKEN = {
    "remembered": b"\x80\x02h\5.",
    "memory": b"\x80\x04r\5\0\0\0.",
    "announced_length": b"\x80\x04\x8e" + struct.pack("<Q", 100) + b"x.",
    "announced_bytes": b"\x96" + struct.pack("<Q", 100) + b"x",
    "nothing": b"",
    "protocol": b"\x80",
    "text": b"garbage",
    "end": b".",
    "cut": pickle.dumps([np.zeros(100)])[:-50],
}


@pytest.mark.parametrize("name", [*REFUSED, *BROKEN])
def test_other_content_is_refused_by_name_and_not_run(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.dat"
    path.write_bytes((REFUSED | BROKEN)[name])
    CALLS.clear()
    reason = "refused" if name in REFUSED else "not a readable pickle"
    with pytest.raises(ValueError, match=rf"bad\.dat: {reason}"):
        read_pickle(path)
    assert not CALLS


def test_a_call_would_be_noticed() -> None:
    CALLS.clear()
    pickle.loads(REFUSED["reduce"])
    assert CALLS == [("called",)]


def test_the_error_gives_the_name_in_the_pickle(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(REFUSED["call"])
    with pytest.raises(ValueError, match=r"bad\.pkl: refused, .*math\.sqrt"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_container_stands_in_one_place(kind: type, protocol: int) -> None:
    inner: object = {"a": [1]} if kind is dict else kind([[1, 2]])
    for content in ([inner, inner], {"points": inner, "colors": inner}):
        with pytest.raises(ValueError, match=r"x: refused"):
            unpickle(io.BytesIO(pickle.dumps(content, protocol)), "x")
    equal = [{"a": [1]}, {"a": [1]}] if kind is dict else [kind([[1, 2]]), kind([[1, 2]])]
    assert unpickle(io.BytesIO(pickle.dumps(equal, protocol)), "x") == equal


def test_a_copy_on_the_stack_is_a_second_place() -> None:
    with pytest.raises(ValueError, match=r"x: refused"):
        unpickle(io.BytesIO(b"\x80\x02](]2e."), "x")
    assert unpickle(io.BytesIO(b"\x80\x02](K\x012e."), "x") == [1, 1]


def test_values_of_rare_opcodes_come_back() -> None:
    assert unpickle(io.BytesIO(b"(K\1K\2d."), "x") == {1: 2}
    assert unpickle(io.BytesIO(b"}K\1K\2s."), "x") == {1: 2}
    assert unpickle(io.BytesIO(b"\x80\x02](K\x01r\5\0\0\0j\5\0\0\0e."), "x") == [1, 1]
    assert unpickle(io.BytesIO(b"\x96" + struct.pack("<Q", 2) + b"ab."), "x") == b"ab"


def test_a_pickle_has_a_limited_length(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps([1] * 50)
    assert unpickle(io.BytesIO(content), "x") == [1] * 50
    monkeypatch.setattr(safe_pickle._CountedDispatch, "ops_left", 50)
    with pytest.raises(ValueError, match=r"x: refused, .*more than"):
        unpickle(io.BytesIO(content), "x")


def test_object_arrays_in_npy_and_npz_take_the_same_road(tmp_path: Path) -> None:
    held = {"xyz": np.arange(6.0).reshape(2, 3), "name": "chair"}
    np.save(tmp_path / "good.npy", held, allow_pickle=True)
    np.testing.assert_equal(read_npy(tmp_path / "good.npy"), held)
    np.savez(tmp_path / "good.npz", a=np.array(held, dtype=object), b=np.arange(3))
    np.testing.assert_equal(read_npz(tmp_path / "good.npz"), {"a": held, "b": np.arange(3)})
    CALLS.clear()
    bad = np.array([NamesFunction()], dtype=object)
    np.save(tmp_path / "bad.npy", bad, allow_pickle=True)
    np.savez(tmp_path / "bad.npz", a=bad)
    for read, name in ((read_npy, "bad.npy"), (read_npz, "bad.npz")):
        with pytest.raises(ValueError, match=f"{name}: refused"):
            read(tmp_path / name)
    assert not CALLS
