import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from recon.data.io.arrays import read_npy, read_npz
from recon.data.io.safe_pickle import read_pickle, unpickle

PLAIN = {
    "list": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1], dtype=np.int32)],
    "scalars": [np.float32(1.5), np.int64(7), np.bool_(True), 3, 2.5, "text", b"bytes", None],
    "nested": {"a": [(np.ones((2, 2), order="F"), 0, 1)], "b": ({"c": np.zeros(0)},)},
    "big_endian": np.arange(4, dtype=">f8"),
    "objects": np.array([{"x": np.arange(3)}, "y"], dtype=object),
    "text_array": np.array(["ab", "c"]),
    "same_array_twice": [np.arange(3)] * 2,
}


class Touch:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)


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


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that would write `mark`, or break in otherwise, if anything of them were run."""
    call = f"open({str(mark)!r}, 'w')".encode()
    return {
        "reduce": pickle.dumps(Touch(mark)),
        "inside_a_list": pickle.dumps([np.zeros(3), Touch(mark)]),
        "inside_an_object_array": pickle.dumps(np.array([Touch(mark)], dtype=object)),
        "global": b"cbuiltins\neval\n(V" + call + b"\ntR.",
        "system": b"cposix\nsystem\n(Vtouch " + str(mark).encode() + b"\ntR.",
        "inst": b"(V" + call + b"\nibuiltins\neval\n.",
        "obj": b"(cbuiltins\neval\nV" + call + b"\no.",
        "newobj": b"\x80\x02cbuiltins\neval\nV" + call + b"\n\x85\x81.",
        "numpy_loader": b"cnumpy\nload\n(V" + str(mark).encode() + b"\nNI01\ntR.",
        "numpy_testing": b"cnumpy.testing._private.utils\nrunstring\n(V" + call + b"\n}tR.",
        "array_as_function": b"cnumpy\nndarray\n(K\x01\x85tR.",
        "huge_array": pickle.dumps(np.zeros(2), 2).replace(b"K\x02\x85", b"J\xff\xff\xff\x7f\x85"),
        "own_flags": pickle.dumps(np.array([None], dtype=object), 2).replace(
            b"]", b"C\x08\0\0\0\0\0\0\0\0h"
        ),
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pname\n.",
        "memory": b"\x80\x04r" + struct.pack("<I", 2**32 - 1) + b".",
        "announced_length": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "filled_bytearray": b"\x96" + struct.pack("<Q", 8 * 10**9) + b"x",
        "codec": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    }


@pytest.mark.parametrize("name", sorted(hostile(Path("x"))))
def test_hostile_pickles_are_refused_by_name_and_not_run(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "bad.dat"
    path.write_bytes(hostile(mark)[name])
    with pytest.raises(ValueError, match=r"bad\.dat: (refused|not a readable)"):
        read_pickle(path)
    assert not mark.exists()


def test_the_check_would_see_an_execution(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    pickle.loads(hostile(mark)["reduce"])
    assert mark.exists()


def test_what_a_pickle_names_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"cos\nsystem\n(Vls\ntR.")
    with pytest.raises(
        ValueError, match=r"bad\.pkl: refused, it holds os\.system.*nothing was run"
    ):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", b"."])
def test_broken_pickles_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pkl: not a readable pickle"):
        read_pickle(path)
    path.write_bytes(pickle.dumps([np.zeros(100)])[:-50])
    with pytest.raises(ValueError, match=r"broken\.pkl: not a readable pickle"):
        read_pickle(path)


def test_object_arrays_in_npy_and_npz_take_the_same_road(tmp_path: Path) -> None:
    held = {"xyz": np.arange(6.0).reshape(2, 3), "name": "chair"}
    np.save(tmp_path / "good.npy", held, allow_pickle=True)
    np.testing.assert_equal(read_npy(tmp_path / "good.npy"), held)
    np.savez(tmp_path / "good.npz", a=np.array(held, dtype=object), b=np.arange(3))
    np.testing.assert_equal(read_npz(tmp_path / "good.npz"), {"a": held, "b": np.arange(3)})
    mark = tmp_path / "executed"
    bad = np.array([Touch(mark)], dtype=object)
    np.save(tmp_path / "bad.npy", bad, allow_pickle=True)
    np.savez(tmp_path / "bad.npz", a=bad)
    for read, name in ((read_npy, "bad.npy"), (read_npz, "bad.npz")):
        with pytest.raises(ValueError, match=f"{name}: refused"):
            read(tmp_path / name)
    assert not mark.exists()
