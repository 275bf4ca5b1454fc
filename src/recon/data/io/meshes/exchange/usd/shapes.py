"""Exact shapes of USD as triangles."""

from typing import Any

import numpy as np
import trimesh.creation
from jaxtyping import Float

from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.exchange.usd.materials import UsdMaterials
from recon.data.io.meshes.surface import Surface

SHAPES = ("Cube", "Sphere", "Cylinder", "Cone", "Capsule", "Plane")
"""Types of prims that are read as triangles."""
NUM_SECTIONS = 64
"""Number of sides around an axis."""
AXES = {"X": [[0, 0, 1], [1, 0, 0], [0, 1, 0]], "Y": [[0, 1, 0], [0, 0, 1], [1, 0, 0]]}
"""Rotations of z to other axes, as matrices for column vectors."""


def read_shape_surface(prim: Any, materials: UsdMaterials) -> Surface:
    """Return the surface of a shape, with the color of its material or its own."""
    from recon.data.io.meshes.exchange.usd.mesh import read_primvar

    def get(name: str) -> Any:
        return prim.GetAttribute(name).Get(materials.time)

    mesh = _make_mesh(prim.GetTypeName(), get)
    vertices: Float[np.ndarray, "v 3"] = np.asarray(mesh.vertices, np.float64)
    if prim.HasAttribute("axis") and get("axis") in AXES:
        vertices = vertices @ np.array(AXES[get("axis")], np.float64).T
    surface = Surface(vertices, np.asarray(mesh.faces, np.int64))
    look = materials.find(prim, 0)[0][1]
    if look.color is not None or look.pixels is not None:
        return surface._replace(base_color=look.color)
    color, _ = read_primvar(prim, "displayColor", materials.time)
    return surface if color is None else surface._replace(base_color=encode_srgb(color[0]))


def _make_mesh(kind: str, get: Any) -> Any:
    """Return a shape around the origin, along z."""
    if kind == "Cube":
        return trimesh.creation.box(extents=[get("size")] * 3)
    if kind == "Sphere":
        return trimesh.creation.icosphere(subdivisions=4, radius=get("radius"))
    if kind == "Cylinder":
        return trimesh.creation.cylinder(get("radius"), get("height"), sections=NUM_SECTIONS)
    if kind == "Cone":
        cone = trimesh.creation.cone(get("radius"), get("height"), sections=NUM_SECTIONS)
        cone.apply_translation((0, 0, -get("height") / 2))
        return cone
    if kind == "Capsule":
        capsule = trimesh.creation.capsule(get("height"), get("radius"), count=[64, 64])
        capsule.apply_translation(-capsule.bounds.mean(0))
        return capsule
    x, y = get("width") / 2, get("length") / 2
    corners = [[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]]
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
