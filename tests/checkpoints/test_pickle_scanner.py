"""Checkpoints that name functions, or are too large, are refused before torch reads them."""

import io
import math
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import released_path
from recon.checkpoints import pickle_scanner
from recon.checkpoints.loading import load, read_task
from recon.checkpoints.pickle_scanner import SafeDtype, make_numpy_scalar, scan_pickle
from recon.checkpoints.provenance import read_provenance
from recon.checkpoints.reader import METADATA_KEY, read_checkpoint
from standins import CALLS, NamesFunction

OFFICIAL = released_path("recon_pretrain_small.pth")
SIZES = {"num_heads": 3, "num_groups": 64}


def official_state() -> dict[str, torch.Tensor]:
    return torch.load(OFFICIAL, weights_only=True)["base_model"]


class NamesSquareRoot:
    """An object whose pickle asks for a call of `math.sqrt`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return math.sqrt, (4.0,)


def wrap(part: object, place: str) -> bytes:
    state = official_state()
    content: Any = {
        "metrics": {"base_model": state, "metrics": part},
        "weight": {"base_model": {**state, "mask_token": part}},
        "name": {"base_model": {**state, part: torch.zeros(1)}},
        "top": part,
        "metadata": {METADATA_KEY: {"num_heads": part}, "state_dict": {"model.x": torch.zeros(1)}},
    }[place.partition("/")[0]]
    file = io.BytesIO()
    if place.endswith("/pickle"):
        return pickle.dumps(content, protocol=4)
    torch.save(content, file, _use_new_zipfile_serialization=not place.endswith("/legacy"))
    return file.getvalue()


PLACES = ("metrics", "weight", "name", "top", "metadata", "metrics/legacy", "top/legacy",
          "top/pickle")  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", PLACES)
def test_no_function_of_a_checkpoint_is_called(place: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    CALLS.clear()
    for part in (NamesFunction(), NamesSquareRoot()):
        path.write_bytes(wrap(part, place))
        for reader in (load, read_task, read_provenance):
            with pytest.raises(
                ValueError, match=r"x\.pth: not a checkpoint that can be read safel"
            ):
                reader(path)
    assert not CALLS


@pytest.mark.slow
def test_the_refusal_gives_a_command_that_converts_the_file(tmp_path: Path) -> None:
    path = tmp_path / "it's official.pth"
    torch.save({"base_model": official_state(), "metrics": NamesSquareRoot()}, path)
    with pytest.raises(ValueError, match="if you trust its author") as caught:
        load(path)
    command = str(caught.value).partition("python -c ")[2]
    subprocess.run(f"{sys.executable} -c {command}", shell=True, check=True, cwd=tmp_path)
    network = load(tmp_path / "it's official_weights.pth", **SIZES)
    assert network.encode(torch.rand(1, 100, 3)).tokens.shape == (1, 64, 96)


def test_broken_files_get_no_such_command(tmp_path: Path) -> None:
    path, content = tmp_path / "x.pth", OFFICIAL.read_bytes()
    for broken in (b"", content[:3000], b"no checkpoint", content[:-3000]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"x\.pth: not a checkpoint") as caught:
            load(path)
        assert "python -c" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {METADATA_KEY: {}},
        {METADATA_KEY: {}, "state_dict": 3},
        {METADATA_KEY: 3, "state_dict": {"model.a.norm.weight": torch.zeros(1)}},
        {1: torch.zeros(1)},
        {"base_model": {1: torch.zeros(1)}},
        {"base_model": {"a": torch.zeros(1), "b": np.float64(3)}},
        {"base_model": OrderedDict()},
        {"base_model": None},
    ],
    ids=str,
)
def test_content_other_than_weights_is_named(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: "):
        load(tmp_path / "x.pth", **SIZES)


def test_numpy_numbers_are_read_and_numpy_objects_are_not(tmp_path: Path) -> None:
    path, state = tmp_path / "x.pth", official_state()
    good = {"acc": np.float64(0.5), "best": np.float32(0.25), "epoch": np.int64(3)}
    good["big"] = np.array(7, ">i4")[()].astype(">i4")
    torch.save({"base_model": state, "metrics": good}, path)
    assert load(path, **SIZES).training is False
    values = {row["measure"]: row["value"] for row in read_provenance(path)["metrics"]}
    assert values == {"acc": 0.5, "best": 0.25, "epoch": 3.0, "big": 7}
    for bad in (np.array([NamesSquareRoot]), np.array([1.0]), np.datetime64("2020-01-01")):
        torch.save({"base_model": state, "metrics": bad}, path)
        with pytest.raises(ValueError, match="not a checkpoint that can be read safely"):
            load(path, **SIZES)


def test_numpy_numbers_have_simple_types() -> None:
    big = SafeDtype("i4")
    big.__setstate__((3, ">", None))
    assert make_numpy_scalar(big, b"\0\0\0\7") == 7
    unordered = SafeDtype("u1")
    for state in ((3, "|", None), (3,), None):
        unordered.__setstate__(state)
    assert make_numpy_scalar(unordered, b"\7") == 7
    for name in ("V8", "U3", "O", "f16"):
        with pytest.raises(pickle.UnpicklingError, match=rf"{name!r}"):
            SafeDtype(name)
    for arguments in ((big, "text"), (np.dtype("i4"), b"\0\0\0\7")):
        with pytest.raises((pickle.UnpicklingError, TypeError), match=""):
            make_numpy_scalar(*arguments)


def write_with_pickle(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Write a checkpoint, and change its pickle."""
    file = io.BytesIO()
    torch.save({"state_dict": {"x": torch.ones(2)}, "z": 1}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize(
    "key",
    [
        b"K\1K\2\x86",  # a tuple
        b"K\1K\2\x86q\x630h\x63",  # a tuple out of the memo
        b"K\1K\2\x862\x86",  # a copy of a tuple on the stack
        b"ctorch\nSize\n(K\1tR",
    ],
)
@pytest.mark.parametrize("code", ["set_item", "set_items", "dict"])
def test_dictionaries_have_keys_of_text_and_numbers(key: bytes, code: str, tmp_path: Path) -> None:
    entry = {
        "set_item": b"}" + key + b"Ns",
        "set_items": b"}(" + key + b"Nu",
        "dict": b"(" + key + b"Nd",
    }[code]
    path, start = tmp_path / "x.ckpt", b"X\1\0\0\0y"
    write_with_pickle(path, lambda content: content[:-2] + start + entry + b"u.")
    with pytest.raises(ValueError, match=r"x\.ckpt: .*(tuple|any)"):
        read_checkpoint(path)
    if code != "dict":  # torch does not read this opcode
        sound = start + entry.replace(key, b"K\1") + b"u."
        write_with_pickle(path, lambda content: content[:-2] + sound)
        assert read_checkpoint(path)["y"] == {1: None}


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_have_a_limited_length(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, path = {"x": [1] * 200}, tmp_path / "x.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(pickle_scanner, "MAX_PICKLE_OPS", 200)
    with pytest.raises(ValueError, match=r"x\.ckpt: .*\b200\b"):
        read_checkpoint(path)
    monkeypatch.setattr(pickle_scanner, "MAX_PICKLE_OPS", 900)
    assert read_checkpoint(path) == content


SHAPES = {
    "tuples": b")" + 9 * b"\x85",
    "tuples_and_numbers": b"K\1" + 9 * b"K\1\x86",
    "tuples_to_marks": 9 * b"(" + b")" + 9 * b"t",
    "tuples_of_the_memo": b"()q\x63" + 8 * b"h\x63\x85q\x63" + b"t",
    "lists": 10 * b"]" + 9 * b"a",
    "lists_changed_later": b"("
    + b"".join(b"]q%c" % n for n in range(100, 109))
    + b"".join(b"h%ch%ca" % (n, n + 1) for n in range(100, 108))
    + b"t",
    "dictionaries": 9 * b"}X\1\0\0\0z" + b"}" + 9 * b"s",
    "mixed": 3 * b"](}X\1\0\0\0z" + b"K\1" + 3 * b"\x85se",
}
"""Pickles of a value in nine containers."""


@pytest.mark.parametrize("name", SHAPES)
def test_pickles_have_a_limited_depth(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = b"X\1\0\0\0y" + SHAPES[name]
    path = write_with_pickle(tmp_path / "x.ckpt", lambda content: content[:-2] + nested + b"u.")
    monkeypatch.setattr(pickle_scanner, "MAX_NESTING", 9)
    with pytest.raises(ValueError, match=r"x\.ckpt: .*\b9\b"):
        read_checkpoint(path)
    monkeypatch.setattr(pickle_scanner, "MAX_NESTING", 10)  # with the dictionary of the checkpoint
    scan_pickle(path)


def test_values_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    cycle = b"X\1\0\0\0y]q\x63h\x63a"
    path = write_with_pickle(tmp_path / "x.ckpt", lambda content: content[:-2] + cycle + b"u.")
    with pytest.raises(ValueError, match=r"x\.ckpt: .*contains itself"):
        read_checkpoint(path)


def test_many_values_at_one_level_are_read(tmp_path: Path) -> None:
    content = {"x": [[n] for n in range(3000)], "same": [[1]] * 1000}
    torch.save(content, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt") == content


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**70, "64 bits"),
        (bytearray(3), r"\.bytearray"),
        ({1, 2}, r"\.set"),
        (np.void(b"ab"), "V2|void"),
    ],
    ids=str,
)
def test_values_that_no_weights_need_are_refused(
    value: object, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    for legacy in (False, True):
        torch.save({"x": value}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=rf"x\.ckpt: .*({reason})"):
            read_checkpoint(path)


def test_the_pickle_is_found_by_torch_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"x": NamesSquareRoot()}, path)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(pickle.UnpicklingError, match=r"math\.sqrt"):
        scan_pickle(path)


def test_checkpoints_of_old_torch_are_read(tmp_path: Path) -> None:
    content = {"a": torch.ones(3)}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "x.pth")["a"], content["a"])
