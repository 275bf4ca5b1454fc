"""Columns without names are told apart by what they hold, or refused with both readings."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io.points.layouts import name_columns
from recon.data.io.points.table import ReadOptions
from recon.data.io.points.tables import convert_array
from recon.data.io.shape import read_shape

N = 400
RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(N, 3)) * 4
NORMALS = XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)
GRAY = RNG.integers(0, 256, (N, 1))
FIELDS = {
    "xyz": XYZ,
    "normals": NORMALS,
    "rgb": RNG.integers(0, 256, (N, 3)),
    "dark": RNG.integers(0, 40, (N, 3)),
    "photo": np.clip(GRAY + RNG.integers(-9, 10, (N, 3)), 0, 255),
    "rgb1": RNG.integers(0, 256, (N, 3)) / 255,
    "rgb16": RNG.integers(0, 256, (N, 3)) * 257,
    "black": np.zeros((N, 3)),
    "white": np.full((N, 3), 255),
    "red": np.full((N, 3), [220, 30, 30]),
    "mean": RNG.uniform(0, 255, (N, 3)),
    "label": RNG.integers(0, 13, (N, 1)),
    "label40": RNG.choice([1, 3, 5, 24, 39], (N, 1)),
    "instance": RNG.integers(0, 900, (N, 1)),
    "zero": np.zeros((N, 1)),
    "alpha": np.full((N, 1), 255),
    "reflectance": RNG.uniform(0, 1, (N, 1)),
    "decibel": RNG.normal(size=(N, 1)) * 20 - 30,
    "leica": RNG.integers(-2048, 2048, (N, 1)),
    "byte": RNG.integers(0, 256, (N, 1)),
    "place": (XYZ - XYZ.min(0)) / np.ptp(XYZ, axis=0),
}
COLORS = ("rgb", "dark", "photo", "rgb1", "rgb16", "black", "white", "red", "mean")
REST = {
    "label": ("label",),
    "label40": ("label",),
    "byte": ("intensity",),
    "decibel": ("intensity",),
    "leica": ("intensity",),
    "reflectance": ("intensity",),
}


def stack(*fields: str) -> np.ndarray:
    return np.hstack([FIELDS[field] for field in ("xyz", *fields)])


def find(*fields: str) -> tuple[int | None, int | None]:
    names = name_columns(stack(*fields))
    assert names[:3] == ["x", "y", "z"]
    assert len(set(names)) == len(names)
    return tuple(names.index(n) if n in names else None for n in ("nx", "r"))


@pytest.mark.parametrize("colors", COLORS)
def test_colors_are_found_among_normals_and_other_columns(colors: str) -> None:
    assert find(colors) == (None, 3)
    assert find("normals", colors) == (3, 6)
    assert find(colors, "normals") == (6, 3)
    assert find("normals", colors, "label") == (3, 6)
    for field in ("label", "label40", "instance", "decibel", "leica"):
        assert find(colors, field) == (None, 3), field
    for field in ("decibel", "leica"):
        assert find(field, colors) == (None, 4)
        assert find(field, colors, "label") == (None, 4)
        assert find(field, colors, "normals") == (7, 4)
        assert find(field, "normals", colors) == (4, 7)
    assert find(colors, "label", "instance") == (None, 3)
    assert find(colors, "place") == (None, 3)
    assert find(colors, "place", "label") == (None, 3)


@pytest.mark.parametrize("colors", ["rgb", "photo", "rgb16", "red", "dark"])
def test_fractions_beside_integer_colors_are_intensities(colors: str) -> None:
    assert find("reflectance", colors) == (None, 4)
    assert find(colors, "reflectance") == (None, 3)


def test_constant_columns_beside_colors() -> None:
    assert find("zero", "rgb") == (None, 4)
    assert find("rgb", "zero") == (None, 3)
    assert find("rgb", "alpha") == (None, 3)
    assert find("byte", "photo") == (None, 4)  # colors are more alike than an intensity
    assert find("photo", "byte") == (None, 3)
    for weights in ([0.3, 0.59, 0.11], [1 / 3, 1 / 3, 1 / 3]):
        FIELDS["luminance"] = (FIELDS["rgb"] @ weights).round()[:, None]
        assert find("luminance", "rgb") == (None, 4)
        assert find("rgb", "luminance") == (None, 3)


@pytest.mark.parametrize("field", REST)
def test_columns_without_colors(field: str) -> None:
    assert name_columns(stack(field))[3:] == [*REST[field]]
    assert name_columns(stack("normals", field))[3:] == ["nx", "ny", "nz", *REST[field]]
    assert name_columns(stack(field, "normals"))[3:] == [*REST[field], "nx", "ny", "nz"]
    assert find("decibel", field) == (None, None)


def test_columns_with_both_readings_are_refused_until_named() -> None:
    table = stack("byte", "rgb")
    readings = r"x y z r g b intensity or x y z intensity r g b: .* columns=\[x,y,z,intensity,r,g,b"
    with pytest.raises(ValueError, match=rf"^a\.npy: not a readable cloud: its 7.* {readings}"):
        convert_array(table, "a.npy", ReadOptions())
    names = ["x", "y", "z", "r", "g", "b", "label"]
    content = convert_array(table, "a.npy", ReadOptions(columns=names))
    assert np.array_equal(content.colors, table[:, 3:6])
    assert np.array_equal(content.extra["label"], table[:, 6])
    skipped = convert_array(table, "a.npy", ReadOptions(columns=[*"xyz", "_", *"rgb"]))
    assert np.array_equal(skipped.colors, table[:, 4:])
    assert not skipped.extra
    with pytest.raises(ValueError, match=r"^a\.npy: has 7 columns, the option .* names 3: x,y,z:"):
        convert_array(table, "a.npy", ReadOptions(columns=[*"xyz"]))


def test_what_was_assumed_is_said_and_other_columns_are_kept() -> None:
    table = stack("rgb", "place", "label")
    content = convert_array(table, "a.npy", ReadOptions())
    assert content.notes == (
        "its columns without names are read as x y z r g b x_normalized y_normalized z_normalized "
        "label",
    )
    assert np.array_equal(content.extra["label"], table[:, -1])
    assert np.array_equal(content.extra["z_normalized"], table[:, -2])
    vectors = convert_array(stack("decibel", "decibel", "leica"), "a.npy", ReadOptions())
    assert vectors.normals is None
    assert vectors.colors is None
    assert [*vectors.extra] == ["column_4", "column_5", "column_6"]


def test_few_points_with_clear_columns() -> None:
    assert name_columns(np.array([[1, 2, 3, -40, 7, 8, 9]]))[3:] == ["intensity", *"rgb"]
    assert name_columns(np.array([[1, 2, 3, 0, 0, 1]]))[3:] == ["nx", "ny", "nz"]
    assert name_columns(np.array([[1, 2, 3, 7, 8, 9]]))[3:] == [*"rgb"]


@pytest.mark.parametrize("shape", [(3, 50), (6, 200), (4, 30), (7, 10_000), (2, 40), (10, 500)])
def test_transposed_arrays_are_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"t.npy: has shape \(\d+, \d+\), expected .*transpose"):
        read_shape(tmp_path / "t.npy")


def test_binary_tables_need_names(tmp_path: Path) -> None:
    path = tmp_path / "000000.bin"
    table = np.hstack([XYZ, FIELDS["reflectance"]]).astype("<f4")
    table.tofile(path)
    with pytest.raises(ValueError, match=r"000000.bin: .* \[kitti\], \[semantickitti\], \[nusc"):
        read_shape(path)
    for columns in (["kitti"], "kitti", ["x", "y", "z", "intensity"]):
        cloud = read_shape(path, options=ReadOptions(columns=columns))
        assert np.array_equal(cloud.points, table[:, :3])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"000000.bin: .*not a multiple of 16 bytes, 4 float32"):
        read_shape(path, options=ReadOptions(columns=["kitti"]))
