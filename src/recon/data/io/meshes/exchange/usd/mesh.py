"""Polygons of USD meshes with the materials of their parts."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.exchange.usd.materials import Look, UsdMaterials
from recon.data.io.meshes.surface import Surface, Texture
from recon.data.io.meshes.triangulation import check_indices, triangulate


def read_primvar(prim: Any, name: str, time: Any) -> tuple[Float[np.ndarray, "n k"] | None, str]:
    """Return the values of a primvar, also an inherited one, and its interpolation."""
    from pxr import UsdGeom

    primvar = UsdGeom.PrimvarsAPI(prim).FindPrimvarWithInheritance(name)
    values = primvar.ComputeFlattened(time) if primvar and primvar.HasValue() else None
    if values is None or not len(values):
        return None, ""
    array = np.array(values, np.float64)
    return array.reshape(len(values), -1), str(primvar.GetInterpolation())


class _Corners:
    """Find the values of a primvar at the corners of the triangles of a mesh."""

    def __init__(self, mesh: Any, time: Any) -> None:
        self.mesh, self.time = mesh, time
        self.points = np.array(mesh.GetPointsAttr().Get(time) or (), np.float64).reshape(-1, 3)
        self.index = np.array(mesh.GetFaceVertexIndicesAttr().Get(time) or (), np.int64)
        self.sizes = np.array(mesh.GetFaceVertexCountsAttr().Get(time) or (), np.int64)
        if len(self.sizes) and (self.sizes.min() < 0 or self.sizes.sum() != len(self.index)):
            raise ValueError(
                f"a mesh declares {self.sizes.sum()} corners, it has {len(self.index)}"
            )
        check_indices(self.index, len(self.points))
        self.places, self.polygons = triangulate(self.points, self.index, self.sizes)
        holes = np.array(mesh.GetHoleIndicesAttr().Get(time) or (), np.int64)
        kept = ~np.isin(self.polygons, holes)
        if mesh.GetOrientationAttr().Get(time) == "leftHanded":
            self.places = self.places[:, ::-1]
        self.places, self.polygons = self.places[kept], self.polygons[kept]

    def get_index(self, interpolation: str) -> Int[np.ndarray, "t 3"] | None:
        """Return the row of values of an interpolation for each corner."""
        if interpolation == "constant":
            return np.zeros_like(self.places)
        if interpolation == "uniform":
            return np.repeat(self.polygons[:, None], 3, 1)
        if interpolation in ("vertex", "varying"):
            return self.index[self.places]
        return self.places if interpolation == "faceVarying" else None

    def find(self, name: str) -> tuple[Float[np.ndarray, "t 3 k"] | None, str]:
        """Return the values of a primvar for each corner, and its interpolation."""
        values, interpolation = read_primvar(self.mesh.GetPrim(), name, self.time)
        rows = self.get_index(interpolation)
        if values is None or rows is None or (rows.size and int(rows.max()) >= len(values)):
            return None, interpolation
        return values[rows], interpolation


def read_mesh_surfaces(mesh: Any, materials: UsdMaterials) -> list[Surface]:
    """Return the surfaces of a mesh, one for each of its materials."""
    corners = _Corners(mesh, materials.time)
    scheme = mesh.GetSubdivisionSchemeAttr()
    if scheme.HasAuthoredValue() and scheme.Get() != "none":
        materials.notes["subdivision is not applied: control meshes are read"] = None
    if mesh.GetPointsAttr().ValueMightBeTimeVarying():
        materials.notes["it is animated: read at its first time"] = None
    if mesh.GetPrim().GetRelationship("skel:skeleton").HasAuthoredTargets():
        materials.notes["skeletons are not applied: meshes are read in their bind pose"] = None
    surfaces = []
    for polygons, look in materials.find(mesh.GetPrim(), len(corners.sizes)):
        rows = np.flatnonzero(polygons[corners.polygons])
        if len(rows):
            surfaces.append(_build_surface(corners, rows, look))
    return surfaces


def _build_surface(corners: _Corners, rows: Int[np.ndarray, " t"], look: Look) -> Surface:
    surface = Surface(corners.points, corners.index[corners.places[rows]], base_color=look.color)
    if look.pixels is not None:
        uv, _ = corners.find(look.uv_name)
        if uv is not None and uv.shape[2] >= 2:
            places = uv[rows][..., :2] @ look.uv_matrix[:2, :2].T + look.uv_matrix[:2, 2]
            texture = Texture(look.pixels, places * (1, -1) + (0, 1), look.wrap)
            return surface._replace(texture=texture)
        look.notes[f"the texture coordinates {look.uv_name!r:.50} are missing: no colors"] = None
        return surface._replace(base_color=None)
    if look.color is not None:
        return surface
    colors, interpolation = corners.find("displayColor")
    if colors is None or colors.shape[2] != 3:
        return surface
    colors = encode_srgb(colors[rows])
    if interpolation == "constant":
        return surface._replace(base_color=colors[0, 0])
    if interpolation == "uniform":
        return surface._replace(face_colors=colors[:, 0])
    return surface._replace(
        vertices=surface.vertices[surface.faces].reshape(-1, 3),
        faces=np.arange(3 * len(rows)).reshape(-1, 3),
        vertex_colors=colors.reshape(-1, 3),
    )
