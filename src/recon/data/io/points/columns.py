"""Find points, normals and colors among named columns; all other columns are kept by name."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Num, UInt8

from recon.data.io.points.table import PointTable

ARRAY_NAMES: Mapping[str, tuple[str, ...]] = {
    "points": (
        "points", "xyz", "pos", "position", "positions", "coords", "coord", "vertices", "pc",
        "pts", "point_set", "pointcloud", "point_cloud", "cloud", "data", "arr_0",
    ),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "rgb", "rgba", "colours", "colour"),
}  # fmt: skip
"""Accepted names of arrays of three or more columns, in order of preference."""
COLUMN_NAMES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "points": (
        ("x", "y", "z"),
        *((f"{p}_x", f"{p}_y", f"{p}_z") for p in ("point", "pos", "position", "coord", "xyz")),
        *((f"{p}_0", f"{p}_1", f"{p}_2") for p in ("points", "xyz", "pos", "coords")),
        *((f"{p}x", f"{p}y", f"{p}z") for p in ("p", "pos")),
        *((f"x_{p}", f"y_{p}", f"z_{p}") for p in ("coord", "coordinate", "position")),
        *(
            (f"x{p}", f"y{p}", f"z{p}")
            for p in ("coord", "coordinate", "_m", "_utm", "_coordinates")
        ),
        *(
            (east, north, up)
            for east, north in (("easting", "northing"), ("east", "north"), ("e", "n"))
            for up in ("elevation", "height", "altitude", "up", "z", "elev", "alt", "h")
        ),
        *(("x", "y", up) for up in ("elevation", "height", "altitude", "elev", "alt")),
    ),
    "normals": (
        ("nx", "ny", "nz"),
        *((f"{p}_x", f"{p}_y", f"{p}_z") for p in ("normal", "normals", "n", "norm")),
        *((f"{p}_0", f"{p}_1", f"{p}_2") for p in ("normal", "normals")),
        *((f"{p}x", f"{p}y", f"{p}z") for p in ("normal", "norm")),
    ),
    "colors": (
        ("r", "g", "b"),
        ("red", "green", "blue"),
        ("rf", "gf", "bf"),
        *((f"{p}_red", f"{p}_green", f"{p}_blue") for p in ("diffuse", "color", "colour")),
        *((f"{p}_r", f"{p}_g", f"{p}_b") for p in ("color", "colour", "rgb", "diffuse")),
        *((f"{p}_0", f"{p}_1", f"{p}_2") for p in ("rgb", "rgba", "color", "colors")),
        *((f"r{p}", f"g{p}", f"b{p}") for p in ("8", "_8", "16", "_16", "_f", "_float")),
        *((f"red{p}", f"green{p}", f"blue{p}") for p in ("_8", "8", "_16", "16", "_f")),
    ),
}
"""Accepted names of three columns, in order of preference; case does not matter."""
PACKED_COLORS = ("rgb", "rgba")
"""Names of a column that holds the three bytes of a color in one number."""
DEGREE_NAMES = frozenset(
    ("longitude", "latitude", "lon", "lat", "long", "lng", "longitude_deg", "latitude_deg")
)
"""Names of geographic coordinates in degrees."""


def select_columns(
    columns: Mapping[str, np.ndarray], source: str, kind: str = "columns"
) -> PointTable:
    """Find points, normals and colors among columns and arrays of columns by their names.

    Each value is a column, (n,), or an array of several, (n, c). Names are compared without case,
    units in brackets and separators, see `COLUMN_NAMES` and `ARRAY_NAMES`; all others become
    `extra`. Raises ValueError that names `source` without coordinates, or if they are degrees; its
    message calls the columns `kind`, which is `columns` or `arrays`.
    """
    keys: dict[str, str] = {}
    for name in columns:
        keys.setdefault(normalize_name(name), name)
    used: set[str] = set()
    fields = {field: _find_field(columns, keys, field, used) for field in ARRAY_NAMES}
    if fields["points"] is None:
        raise ValueError(explain_missing_points(list(columns), source, kind))
    points = fields["points"]
    if fields["colors"] is None:
        fields["colors"] = _find_packed_colors(columns, keys, used)
    extra: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if name not in used and np.ndim(values) and len(values) == len(points):
            extra |= _split_array(name, values)
    return PointTable(points, fields["normals"], fields["colors"], extra)


def find_names(names: Iterable[str], field: str) -> list[str]:
    """Return the three of the names that are those of `points`, `normals` or `colors`, or none."""
    keys = {normalize_name(name): name for name in names}
    group = next((group for group in COLUMN_NAMES[field] if keys.keys() >= {*group}), ())
    return [keys[key] for key in group]


def has_point_names(names: Sequence[str]) -> bool:
    """Return whether three of the names are those of coordinates."""
    return bool(find_names(names, "points"))


def has_degrees(names: Sequence[str]) -> bool:
    """Return whether two of the names are those of longitude and latitude."""
    return len(DEGREE_NAMES & {normalize_name(name) for name in names}) > 1


def explain_missing_points(names: Sequence[str], source: str, kind: str = "columns") -> str:
    """Return why no columns or arrays of these names are coordinates, and what to do about it."""
    if has_degrees(names):
        return (
            f"{source}: its coordinates are longitude and latitude in degrees: project them to "
            "meters, e.g. to UTM, and name them x, y and z"
        )
    if kind == "arrays":
        return (
            f"{source}: has the arrays {sorted(names)!s:.500}, none is called "
            f"{' or '.join(ARRAY_NAMES['points'][:2])}: rename the one with coordinates"
        )
    return (
        f"{source}: has the columns {list(names)!s:.500}, none are called x, y and z: rename those "
        "with coordinates, or name all columns with the option columns=[x,y,z,...]"
    )


def normalize_name(name: str) -> str:
    """Return a column's name in lower case, without units, quotes and comment signs."""
    plain = re.sub(r"[\[(<].*?[\])>]", "", name).strip(" \t\"'#/").lower()
    return re.sub(r"[\s:.\-]+", "_", plain).strip("_")


def _find_field(
    columns: Mapping[str, np.ndarray], keys: Mapping[str, str], field: str, used: set[str]
) -> Num[np.ndarray, "n c"] | None:
    """Return the columns of a field, None without them; add their names to `used`."""
    for group in COLUMN_NAMES[field]:
        names = [keys[key] for key in group if key in keys]
        shapes = {np.shape(columns[name]) for name in names}
        if len(names) == 3 and len(shapes) == 1 and len(next(iter(shapes))) == 1:
            used |= set(names)
            return np.stack([columns[name] for name in names], 1)
    for key in ARRAY_NAMES[field]:
        if key in keys and np.ndim(columns[keys[key]]) > 1:
            used.add(keys[key])
            return columns[keys[key]]
    return None


def _find_packed_colors(
    columns: Mapping[str, np.ndarray], keys: Mapping[str, str], used: set[str]
) -> UInt8[np.ndarray, "n 3"] | None:
    name = next((keys[key] for key in PACKED_COLORS if key in keys), None)
    if name is None or columns[name].ndim != 1 or not len(columns[name]):
        return None
    colors = unpack_colors(columns[name])
    if colors is not None:
        used.add(name)
    return colors


def unpack_colors(packed: Num[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"] | None:
    """Return the bytes of colors 0xRRGGBB, which may be stored as the bits of a float32.

    Numbers that are no such colors give None.
    """
    with np.errstate(invalid="ignore"):
        numbers = packed.astype(np.int64)
    if packed.dtype.kind == "f":
        bits = np.ascontiguousarray(packed, np.float32).view(np.uint32)
        # As numbers, the bits of a color without alpha are tiny.
        is_number = np.isfinite(packed).all() and (packed == numbers).all() and packed.any()
        numbers = numbers if is_number else bits.astype(np.int64)
    if numbers.max() >= 2**32 or numbers.min() < -(2**31):
        return None
    return np.stack([(numbers >> shift) & 255 for shift in (16, 8, 0)], 1).astype(np.uint8)


def _split_array(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return a column by name, and an array of several as `name_0`, `name_1`, ..."""
    if values.dtype.kind not in "biuf" or values.ndim > 2:
        return {}
    if values.ndim == 1:
        return {name: values}
    if values.shape[1] == 1:
        return {name: values[:, 0]}
    return {f"{name}_{column}": values[:, column] for column in range(values.shape[1])}
