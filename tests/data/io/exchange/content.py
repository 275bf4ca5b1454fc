"""Triangles of the content of mesh files."""

from pathlib import Path

import numpy as np

from recon.data.io.meshes.surface import MeshContent
from recon.data.io.shape import read_content

FILES = Path(__file__).parents[1] / "files"


def read(path: Path) -> MeshContent:
    content = read_content(path)
    assert isinstance(content, MeshContent)
    return content


def collect(content: MeshContent) -> np.ndarray:
    """Corners of all triangles, (t, 3, 3)."""
    return np.concatenate([s.vertices[s.faces] for s in content.surfaces])


def compute_normals(content: MeshContent) -> np.ndarray:
    """Normals of all triangles, of the length of their areas."""
    corners = collect(content)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


def measure(content: MeshContent) -> float:
    return float(np.linalg.norm(compute_normals(content), axis=1).sum())
