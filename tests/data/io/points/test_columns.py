"""Points, normals, colors and other properties are found by the names of columns."""

import numpy as np
import pytest

from recon.data.io.points.columns import select_columns

TABLE = np.arange(24.0).reshape(2, 12)
XYZ, NORMALS, COLORS = [*"xyz"], ["nx", "ny", "nz"], [*"rgb"]


def select(*names: str) -> tuple[list[int], list[int], list[int], list[str]]:
    """Return the numbers of the columns that are points, normals and colors, and other names."""
    found = select_columns({name: TABLE[:, place] for place, name in enumerate(names)}, "a.txt")
    fields = (found.points, found.normals, found.colors)
    return *([] if f is None else f[0].astype(int).tolist() for f in fields), [*found.extra]


@pytest.mark.parametrize(
    "names",
    [
        "x y z", "X Y Z", "//X Y Z", '"x" "y" "z"', "Points:0 Points:1 Points:2", "#x y z",
        "easting northing elevation", "E N H", "Easting Northing Height", "point.x point.y point.z",
        "X[m] Y[m] Z[m]", "pos_x pos_y pos_z", "X_UTM Y_UTM Z_UTM", "xcoord ycoord zcoord",
    ],
)  # fmt: skip
def test_coordinates_have_many_names(names: str) -> None:
    first, second, third = names.split()
    assert select(first, second, third) == ([0, 1, 2], [], [], [])
    assert select("point_id", third, "label", second, first) == (
        [4, 3, 1], [], [], ["point_id", "label"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "names",
    ["nx ny nz", "Nx Ny Nz", "normal_x normal_y normal_z", "NormalX NormalY NormalZ",
     "normals_x normals_y normals_z", "Normals:0 Normals:1 Normals:2"],
)  # fmt: skip
def test_normals_have_many_names(names: str) -> None:
    assert select("x", "y", "z", *names.split(), "t") == ([0, 1, 2], [3, 4, 5], [], ["t"])


@pytest.mark.parametrize(
    "names",
    ["r g b", "R G B", "red green blue", "Rf Gf Bf", "diffuse_red diffuse_green diffuse_blue",
     "r8 g8 b8", "Red Green Blue", "color_r color_g color_b", "RGB:0 RGB:1 RGB:2", "R8 G8 B8"],
)  # fmt: skip
def test_colors_have_many_names(names: str) -> None:
    columns = ("x", "y", "z", "Intensity", *names.split(), "nx", "ny", "nz", "Classification")
    extra = ["Intensity", "Classification"]
    assert select(*columns) == ([0, 1, 2], [7, 8, 9], [4, 5, 6], extra)


@pytest.mark.parametrize(
    "names", [("longitude", "latitude", "height"), ("id", "lat", "lon", "alt"), ("Lon", "Lat", "z")]
)
def test_degrees_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^a\.txt: its coordinates are .* degrees: project them"):
        select(*names)
    assert select(*names[:2], "x", "y", "z2", "zz", "Z")[0] == [2, 3, 6]


def test_columns_without_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a\.txt: has the columns \['u', 'v'\], none are .*: re"):
        select("u", "v")


def test_arrays_of_several_columns() -> None:
    arrays = {"XYZ": TABLE[:, :3], "Normal": TABLE[:, 3:6], "rgb": TABLE[:, 6:9], "y": np.ones(9)}
    features = {"labels": TABLE[:, :1], "x": TABLE[:, 9:], "scale": np.array(1.0)}
    found = select_columns(arrays | features, "a.npz")
    fields = (found.points, found.normals, found.colors)
    assert [field[0, 0] for field in fields] == [0, 3, 6]
    assert [*found.extra] == ["labels", "x_0", "x_1", "x_2"]


@pytest.mark.parametrize("dtype", ["<u4", "<i4", "<f4", "<i8", "<f8"])
def test_packed_colors_are_unpacked(dtype: str) -> None:
    colors = np.array([[255, 0, 7], [1, 2, 3]])
    packed = np.array([(255 << 24) + (r << 16) + (g << 8) + b for r, g, b in colors], "<u4")
    if dtype == "<f4":  # the bits of a number, as the Point Cloud Library stores them
        values = (packed & 0xFFFFFF).view("<f4")
    else:
        values = packed.view("<i4") if dtype == "<i4" else packed.astype(dtype)
    xyz = dict(zip("xyz", TABLE.T[:3], strict=True))
    assert select_columns(xyz | {"rgb": values}, "a").colors.tolist() == colors.tolist()
