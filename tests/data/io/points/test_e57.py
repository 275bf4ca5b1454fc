"""E57 scans: poses, invalid points, spherical coordinates, colors, and sizes that do not fit."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pye57
import pytest
from pye57 import libe57

from recon.data.io.points import e57_checks
from recon.data.io.points.e57 import read_e57
from recon.data.io.points.table import PointTable, ReadOptions

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.integers(-999, 999, (40, 3)) / 64
COLORS = RANDOM.integers(0, 256, (40, 3))
POSE = {"rotation": np.array([0.5, 0.5, 0.5, 0.5]), "translation": np.array([5e5, 5.5e6, 100.0])}
"""x to y, y to z, z to x, then a shift to map coordinates."""


def read(path: Path) -> PointTable:
    return read_e57(path, ReadOptions())


def make_scan(**fields: np.ndarray) -> dict[str, np.ndarray]:
    scan = {f"cartesian{axis}": POINTS[:, n] for n, axis in enumerate("XYZ")}
    scan |= {f"color{name}": COLORS[:, n] for n, name in enumerate(("Red", "Green", "Blue"))}
    scan["intensity"] = np.arange(40) / 64
    return scan | fields


def write(path: Path, *scans: dict[str, np.ndarray], **pose: np.ndarray) -> Path:
    with pye57.E57(str(path), mode="w") as file:
        for scan in scans:
            file.write_scan_raw(scan, **pose)
    return path


def write_nodes(
    path: Path, fields: dict[str, tuple[Any, np.ndarray]], **structures: dict[str, float]
) -> Path:
    """Write a scan of any fields, each with its node, and structures of numbers such as a pose."""
    with pye57.E57(str(path), mode="w") as file:
        image = file.image_file
        scan, prototype = libe57.StructureNode(image), libe57.StructureNode(image)
        for name, (node, _) in fields.items():
            prototype.set(name, node(image))
        for name, numbers in structures.items():
            structure = libe57.StructureNode(image)
            scan.set(name, structure)
            for key, value in numbers.items():
                if isinstance(value, dict):
                    inner = libe57.StructureNode(image)
                    structure.set(key, inner)
                    for letter, number in value.items():
                        inner.set(letter, libe57.FloatNode(image, number))
                else:
                    structure.set(key, libe57.FloatNode(image, float(value)))
        points = libe57.CompressedVectorNode(image, prototype, libe57.VectorNode(image, True))
        scan.set("points", points)
        file.data3d.append(scan)
        buffers, count = libe57.VectorSourceDestBuffer(), len(next(iter(fields.values()))[1])
        arrays = [np.ascontiguousarray(values, np.float64) for _, values in fields.values()]
        for name, array in zip(fields, arrays, strict=True):
            buffers.append(libe57.SourceDestBuffer(image, name, array, count, True, True))
        writer = points.writer(buffers)
        writer.write(count)
        writer.close()
    return path


def double(image: Any) -> Any:
    return libe57.FloatNode(image, 0.0)


def test_poses_are_applied_and_invalid_points_are_dropped(tmp_path: Path) -> None:
    state = np.arange(40) % 4
    scan = make_scan(cartesianInvalidState=state.astype(np.int8))
    table = read(write(tmp_path / "a.e57", scan, make_scan(), **POSE))
    valid = state == 0
    moved = POINTS[:, [2, 0, 1]] + POSE["translation"]
    assert np.allclose(table.points, np.concatenate([moved[valid], moved]), atol=1e-9, rtol=0)
    assert table.colors.dtype == np.uint8
    assert np.array_equal(table.colors, np.concatenate([COLORS[valid], COLORS]))
    assert np.array_equal(table.extra["scan"], [0] * 10 + [1] * 40)
    assert np.array_equal(table.extra["intensity"][10:], np.arange(40) / 64)
    assert table.notes == ("30 of 80 points are marked invalid: dropped",)
    assert (table.up, table.unit_meters) == ("z", 1.0)


def test_points_agree_with_those_of_pye57(tmp_path: Path) -> None:
    path = write(tmp_path / "a.e57", make_scan(), **POSE)
    with pye57.E57(str(path)) as file:
        other = file.read_scan(0, colors=True, ignore_missing_fields=True)
    table = read(path)
    assert np.allclose(table.points, np.stack([other[f"cartesian{a}"] for a in "XYZ"], 1))
    assert np.array_equal(table.colors[:, 1], other["colorGreen"])
    assert "scan" not in table.extra


def test_spherical_coordinates_are_converted(tmp_path: Path) -> None:
    values = {"sphericalRange": [2, 2, 2, 9], "sphericalAzimuth": [0, np.pi / 2, 0, 0],
              "sphericalElevation": [0, 0, np.pi / 2, 0], "sphericalInvalidState": [0, 0, 0, 1],
              "rowIndex": [3, 4, 5, 6]}  # fmt: skip
    nodes = {name: double for name in list(values)[:3]}
    nodes["sphericalInvalidState"] = lambda image: libe57.IntegerNode(image, 0, 0, 2)
    nodes["rowIndex"] = lambda image: libe57.IntegerNode(image, 0, 0, 99)
    fields = {name: (nodes[name], np.array(values[name])) for name in values}
    table = read(write_nodes(tmp_path / "a.e57", fields))
    assert np.allclose(table.points, [[2, 0, 0], [0, 2, 0], [0, 0, 2]], atol=1e-15)
    assert table.extra["rowIndex"].tolist() == [3, 4, 5]
    assert table.extra["rowIndex"].dtype == np.int64


@pytest.mark.parametrize(
    ("high", "dtype", "factor"),
    [(255, np.uint8, 1), (65535, np.uint16, 1), (1023, np.float32, 1 / 1023)],
)
def test_colors_follow_their_limits(high: int, dtype: Any, factor: float, tmp_path: Path) -> None:
    values = np.array([0, 5, high])
    fields = {f"cartesian{axis}": (double, POINTS[:3, 0]) for axis in "XYZ"}
    names = [f"color{name}" for name in ("Red", "Green", "Blue")]
    limits = {f"{name}{kind}": n for name in names for kind, n in (("Minimum", 0),
                                                                  ("Maximum", high))}  # fmt: skip
    for name in names:
        fields[name] = (lambda image: libe57.IntegerNode(image, 0, 0, 65535), values)
    table = read(write_nodes(tmp_path / "a.e57", fields, colorLimits=limits))
    assert table.colors.dtype == dtype
    assert np.allclose(table.colors[:, 2], values * factor)


def test_scaled_integers_and_rotations_in_any_order_are_read(tmp_path: Path) -> None:
    def scaled(image: Any) -> Any:
        return libe57.ScaledIntegerNode(image, 0, -(2**30), 2**30, 0.001, 5.0)

    fields = {f"cartesian{axis}": (scaled, POINTS[:, n].round(3) + 5)
              for n, axis in enumerate("XYZ")}  # fmt: skip
    half = np.sqrt(0.5)
    pose = {"rotation": {"z": half, "y": 0.0, "x": 0.0, "w": half}}
    table = read(write_nodes(tmp_path / "a.e57", fields, pose=pose))
    points = POINTS.round(3) + 5
    assert np.allclose(table.points, points[:, [1, 0, 2]] * [-1, 1, 1], atol=1e-9)


def test_normals_are_rotated(tmp_path: Path) -> None:
    fields = {f"cartesian{axis}": (double, POINTS[:1, 0]) for axis in "XYZ"}
    path = tmp_path / "a.e57"
    pose = {"rotation": dict(zip("wxyz", POSE["rotation"].tolist(), strict=True))}
    plain = read(write_nodes(path, fields, pose=pose))
    assert plain.normals is None
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recon.data.io.points.e57.NORMALS", ("rowIndex", "columnIndex", "returnIndex")
        )
        for name, value in (("rowIndex", 1), ("columnIndex", 0), ("returnIndex", 0)):
            fields[name] = (lambda image: libe57.IntegerNode(image, 0, 0, 9), np.array([value]))
        table = read(write_nodes(path, fields, pose=pose))
    assert np.allclose(table.normals, [[0, 1, 0]])


def test_properties_of_some_scans_only_are_left_out_and_said(tmp_path: Path) -> None:
    plain = {name: values for name, values in make_scan().items() if name.startswith("cart")}
    table = read(write(tmp_path / "a.e57", make_scan(), plain))
    assert len(table.points) == 80
    assert table.colors is None
    assert list(table.extra) == ["scan"]
    assert table.notes == ("only some scans have intensity, colors: left out",)


def test_files_that_declare_more_than_they_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.e57", make_scan())
    content = path.read_bytes()
    changed = content.replace(b'recordCount="40"', b'recordCount="99999"'.ljust(20))
    assert changed != content
    for name, data, reason in (
        ("short.e57", content[:900], "declares .* bytes, it has 900"),
        ("other.e57", b"ASTM-E58" + content[8:], "no E57 header"),
        ("empty.e57", b"ASTM", "no E57 header"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
            read(tmp_path / name)
    root = e57_checks._parse_xml(e57_checks._read_xml(path, len(content)))
    next(root.iter("points")).set("recordCount", "99999")
    monkeypatch.setattr(e57_checks, "_parse_xml", lambda content: root)
    with pytest.raises(ValueError, match="declares 99999 points"):
        read(path)
    next(root.iter("points")).set("recordCount", "-1")
    with pytest.raises(ValueError, match="declares -1 points"):
        read(path)
    next(root.iter("points")).set("recordCount", "40")
    monkeypatch.setattr(e57_checks, "MIN_UNPACK_LIMIT", 0)
    monkeypatch.setattr(e57_checks, "MAX_UNPACK_RATIO", 0)
    with pytest.raises(ValueError, match="split it"):
        read(path)


def test_xml_with_entities_or_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="entities"):
        e57_checks._parse_xml(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    with pytest.raises(ValueError, match="nested more than 64"):
        e57_checks._parse_xml(b"<a>" * 65 + b"</a>" * 65)


def test_fields_without_coordinates_are_refused(tmp_path: Path) -> None:
    fields = {"cartesianX": (double, POINTS[:, 0])}
    with pytest.raises(ValueError, match="fields cartesianX, neither"):
        read(write_nodes(tmp_path / "a.e57", fields))
    with pye57.E57(str(tmp_path / "b.e57"), mode="w"):
        pass
    with pytest.raises(ValueError, match="no scans"):
        read(tmp_path / "b.e57")


def test_files_name_the_package_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pye57", None)
    with pytest.raises(ValueError, match=r"pye57: pip install 'recon-pointcloud\[e57\]'"):
        read(Path("a.e57"))
