"""Clouds and surfaces: colors, faces and textures that cannot be used are refused by name."""

import numpy as np
import pytest

from recon.data.io.meshes.surface import Surface
from recon.data.io.points.cloud import make_cloud, normalize_colors
from recon.data.io.surface_sampling import sample_surfaces

POINTS = np.random.default_rng(0).normal(size=(3, 3))


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (np.full((3, 3), 7, np.uint8), 7),
        (np.full((3, 4), 0.5), 0.5),
        (np.full((3, 3), 7.2), 7),
        (np.full((3, 3), 65535), 1.0),
    ],
)
def test_colors_of_all_ranges_are_normalized(colors: np.ndarray, expected: float) -> None:
    rgb = normalize_colors(colors, "x")
    assert rgb.shape == (3, 3)
    assert (rgb == expected).all()
    assert rgb.dtype == (np.uint8 if expected == 7 else np.float32)


@pytest.mark.parametrize("value", [-1, 65536, float("nan")])
def test_colors_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^x\.ply"):
        make_cloud(POINTS, "x.ply", colors=np.full((3, 3), value))


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 3, 1)])
@pytest.mark.parametrize("name", ["normals", "colors"])
def test_fields_fit_their_points(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^x\.ply: has {name} of shape .* 3 points"):
        make_cloud(POINTS, "x.ply", **{name: np.zeros(shape)})


def test_faces_name_vertices_that_are_there_and_have_an_area() -> None:
    surface = Surface(np.eye(3), np.array([[0, 1, 2]]))
    assert len(sample_surfaces([surface], 9, "x.off", "x.off").points) == 9
    for changed in ([[0, 1, 3]], [[0, 1, -1]]):
        invalid = surface._replace(faces=np.array(changed))
        with pytest.raises(ValueError, match=r"^x\.off: .*3 vertices"):
            sample_surfaces([invalid], 9, "x.off", "x.off")
    with pytest.raises(ValueError, match=r"^x\.off: .*area"):
        sample_surfaces([surface._replace(faces=np.zeros((1, 3), int))], 9, "x.off", "x.off")
