"""Read .usd, .usda, .usdc and .usdz files with OpenUSD: what is visible when they are opened."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.exchange.placement import (
    check_num_triangles,
    join_surfaces,
    place_surface,
)
from recon.data.io.meshes.exchange.usd.checks import check_layers
from recon.data.io.meshes.exchange.usd.materials import UsdMaterials
from recon.data.io.meshes.exchange.usd.mesh import read_mesh_surfaces, read_primvar
from recon.data.io.meshes.exchange.usd.shapes import SHAPES, read_shape_surface
from recon.data.io.meshes.surface import MeshContent, Surface
from recon.data.io.meshes.textures import TextureLoader
from recon.data.io.points.table import PointTable, ReadOptions

MAX_USD_BYTES = 2**30
"""Maximum size of a file, in bytes."""


def read_usd(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of a stage at its first time, or else its points, in its unit and axes.

    Only visible prims of the purposes `default` and `render` are read. Raises ValueError that names
    the file.
    """
    check_file(path, MAX_USD_BYTES)
    try:
        from pxr import Tf, UsdUtils
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading {path.suffix.lower()} files needs usd-core: "
            "pip install 'recon-pointcloud[usd]'"
        ) from error
    with wrap_read_errors(path, "USD file"):
        silencer = UsdUtils.CoalescingDiagnosticDelegate()  # messages would go to the console
        try:
            check_layers(path)
            return _StageReader(path).read()
        except Tf.ErrorException as error:  # its message begins with a place in OpenUSD's code
            message = str(error).strip().partition(" : '")[2].strip("'")
            place = re.search(r":(\d+):\d+: ", message)
            reason = f"its text is not valid in line {place[1]}" if place else message
            raise ValueError(reason) from error
        finally:
            silencer.TakeUncoalescedDiagnostics()
            del silencer


def to_matrix(matrix: Any) -> Float[np.ndarray, "4 4"]:
    """Return a matrix for column vectors; USD's are for row vectors."""
    return np.array(matrix, dtype=np.float64).T


class _StageReader:
    """Collect the surfaces and points of a stage."""

    def __init__(self, path: Path) -> None:
        from pxr import Usd, UsdGeom

        self.stage = stage = Usd.Stage.Open(str(path))
        has_range = stage.HasAuthoredTimeCodeRange()
        self.time = stage.GetStartTimeCode() if has_range else Usd.TimeCode.EarliestTime()
        self.transforms = UsdGeom.XformCache(self.time)
        self.notes, self.num_triangles = dict[str, None](), 0
        self.omitted: dict[str, int] = {}
        self.materials = UsdMaterials(path, TextureLoader(path), self.time, self.notes)
        self.clouds = list[PointTable]()

    def read(self) -> MeshContent:
        """Return all surfaces, and what the stage declares."""
        from pxr import UsdGeom

        surfaces = join_surfaces(self._read_below(self.stage.GetPseudoRoot(), np.eye(4)))
        if surfaces and self.clouds:
            self.omitted["point clouds beside surfaces"] = len(self.clouds)
        has_unit = UsdGeom.StageHasAuthoredMetersPerUnit(self.stage)
        omitted = [f"{count} {kind}: left out" for kind, count in self.omitted.items()]
        errors = [f"a reference failed: {str(e)[:200]}" for e in self.stage.GetCompositionErrors()]
        return MeshContent(
            surfaces,
            None if surfaces or not self.clouds else _join_clouds(self.clouds),
            str(UsdGeom.GetStageUpAxis(self.stage)).lower(),
            (UsdGeom.GetStageMetersPerUnit(self.stage) or None) if has_unit else None,
            (*self.notes, *self.materials.loader.notes, *omitted, *errors),
        )

    def _read_below(self, root: Any, parent: Float[np.ndarray, "4 4"]) -> Iterator[Surface]:
        """Yield the surfaces of a prim and its descendants; its own placement becomes `parent`."""
        from pxr import Usd, UsdGeom

        predicate = Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)
        prims = iter(Usd.PrimRange(root, predicate))
        start = to_matrix(self.transforms.GetLocalToWorldTransform(root))
        origin = parent @ np.linalg.inv(start)
        for prim in prims:
            if prim.IsA(UsdGeom.PointInstancer):
                prims.PruneChildren()
            if not prim.IsA(UsdGeom.Boundable) or not self._is_shown(prim):
                continue
            matrix = origin @ to_matrix(self.transforms.GetLocalToWorldTransform(prim))
            if UsdGeom.Xformable(prim).TransformMightBeTimeVarying():
                self.notes["it is animated: read at its first time"] = None
            if prim.IsA(UsdGeom.PointInstancer):
                yield from self._repeat(UsdGeom.PointInstancer(prim), matrix)
            else:
                for surface in self._read_prim(prim, matrix):
                    self.num_triangles += len(surface.faces)
                    check_num_triangles(self.num_triangles)
                    yield place_surface(surface, matrix)

    def _is_shown(self, prim: Any) -> bool:
        from pxr import UsdGeom

        item = UsdGeom.Imageable(prim)
        if item.ComputePurpose() not in (UsdGeom.Tokens.default_, UsdGeom.Tokens.render):
            kind = "prims of the purposes guide and proxy"
        elif item.ComputeVisibility(self.time) == UsdGeom.Tokens.invisible:
            kind = "invisible prims"
        else:
            return True
        self.omitted[kind] = self.omitted.get(kind, 0) + 1
        return False

    def _read_prim(self, prim: Any, matrix: Float[np.ndarray, "4 4"]) -> list[Surface]:
        from pxr import UsdGeom

        if prim.IsA(UsdGeom.Mesh):
            return read_mesh_surfaces(UsdGeom.Mesh(prim), self.materials)
        if prim.IsA(UsdGeom.Points):
            self._add_cloud(prim, matrix)
        elif prim.GetTypeName() in SHAPES:
            if prim.GetTypeName() not in ("Cube", "Plane"):
                self.notes["spheres and other round shapes are read as triangles"] = None
            return [read_shape_surface(prim, self.materials)]
        else:
            kind = f"prims of the type {prim.GetTypeName()}"
            self.omitted[kind] = self.omitted.get(kind, 0) + 1
        return []

    def _add_cloud(self, prim: Any, matrix: Float[np.ndarray, "4 4"]) -> None:
        from pxr import UsdGeom

        points = np.array(UsdGeom.Points(prim).GetPointsAttr().Get(self.time) or (), np.float64)
        points = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
        values, interpolation = read_primvar(prim, "displayColor", self.time)
        colors = None
        if values is not None and interpolation == "constant":
            colors = np.broadcast_to(values[:1], points.shape)
        elif values is not None and len(values) == len(points):
            colors = values
        self.clouds.append(PointTable(points, colors=None if colors is None else to_bytes(colors)))

    def _repeat(self, instancer: Any, matrix: Float[np.ndarray, "4 4"]) -> Iterator[Surface]:
        """Yield the prototypes of an instancer at all of its placements."""
        indices = instancer.GetProtoIndicesAttr().Get(self.time)
        matrices = instancer.ComputeInstanceTransformsAtTime(self.time, self.time)
        mask = instancer.ComputeMaskAtTime(self.time)
        indices = np.array(indices or (), np.int64)
        indices = indices[np.array(mask, bool)] if len(mask) else indices
        placements = np.array(matrices, np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
        targets = instancer.GetPrototypesRel().GetForwardedTargets()
        if len(placements) != len(indices):
            raise ValueError(
                f"an instancer has {len(placements)} placements of {len(indices)} prototypes"
            )
        for number, target in enumerate(targets):
            prototype, used = self.stage.GetPrimAtPath(target), placements[indices == number]
            if not prototype or not len(used):
                continue
            before = self.num_triangles
            surfaces = list(self._read_below(prototype, np.eye(4)))
            self.num_triangles += (len(used) - 1) * (self.num_triangles - before)
            check_num_triangles(self.num_triangles)
            for placement in matrix @ used:
                yield from (place_surface(surface, placement) for surface in surfaces)


def to_bytes(colors: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """Return linear colors as sRGB bytes."""
    return np.rint(255 * encode_srgb(np.asarray(colors, np.float64))).astype(np.uint8)


def _join_clouds(clouds: list[PointTable]) -> PointTable:
    colors = [cloud.colors for cloud in clouds if cloud.colors is not None]
    return PointTable(
        np.concatenate([cloud.points for cloud in clouds]),
        colors=np.concatenate(colors) if len(colors) == len(clouds) else None,
    )
