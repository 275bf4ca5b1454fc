"""Read the primitives of glTF meshes, and place their copies in the scene."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from recon.data.io.meshes.gltf.accessors import to_floats
from recon.data.io.meshes.gltf.attributes import LINE_STRIP, LINES, POINTS, TRIANGLES, Attributes
from recon.data.io.meshes.gltf.container import GltfFile
from recon.data.io.meshes.gltf.materials import Material, Materials
from recon.data.io.meshes.gltf.nodes import Placement
from recon.data.io.meshes.gltf.skins import Skins, add_morph_targets, transform_points


class Part(NamedTuple):
    """One primitive, in the coordinates of its mesh or of the scene."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"] | None
    """Triangles; None for points."""
    material: Material
    colors: Num[np.ndarray, "v 3"] | None = None
    """sRGB, uint8 or fractions."""
    uv: Float[np.ndarray, "v 2"] | None = None
    normals: Float[np.ndarray, "v 3"] | None = None
    """Normals of points."""

    def sets_color(self) -> bool:
        """Return whether its vertices or its material set a color."""
        has_factor = self.material.factor is not None
        return self.colors is not None or has_factor or self.material.color_map is not None


class _Shape(NamedTuple):
    """One primitive in the coordinates of its mesh."""

    part: Part
    attributes: Attributes
    rows: Int[np.ndarray, " n"] | None
    """The vertices that points use."""


class Primitives:
    """Read each primitive of a file once, and place its copies.

    Raises ValueError for damaged arrays. `num_lines` counts primitives of lines: they are omitted.
    """

    def __init__(self, file: GltfFile, skins: Skins) -> None:
        self.file, self.skins, self.materials = file, skins, Materials(file)
        self.num_lines = 0
        self._shapes: dict[tuple[int, int, tuple[float, ...]], _Shape | None] = {}

    def place(self, placement: Placement) -> list[Part]:
        """Return the primitives of a mesh, placed in the scene."""
        mesh = self.file.item("meshes", placement.mesh)
        weights = placement.weights
        if weights is None:
            weights = tuple(map(float, mesh.get("weights", ())))
        parts = list[Part]()
        for number, primitive in enumerate(mesh["primitives"]):
            key = (placement.mesh, number, weights)
            if key not in self._shapes:
                self._shapes[key] = self._read(primitive, weights)
            if (shape := self._shapes[key]) is not None:
                parts.append(self._place(shape, placement))
        return parts

    def _place(self, shape: _Shape, placement: Placement) -> Part:
        part, copies = shape.part, placement.transforms
        num_faces = 0 if part.faces is None else len(part.faces)
        self.file.reserve(len(copies) * (len(part.vertices) + num_faces))
        matrices = None
        if placement.skin is not None:
            matrices = self.skins.blend(placement.skin, shape.attributes)
        if matrices is not None:
            part = _deform(part, matrices)
        if shape.rows is not None:
            part = _select(part, shape.rows)
        return part if matrices is not None else _copy(part, copies)

    def _read(self, primitive: Mapping[str, Any], weights: Sequence[float]) -> _Shape | None:
        """Read a primitive; None for lines and for one without positions."""
        mode = primitive.get("mode", TRIANGLES)
        if LINES <= mode <= LINE_STRIP:
            self.num_lines += 1
            return None
        if "POSITION" not in primitive["attributes"]:
            return None
        attributes = Attributes(self.file, primitive)
        reader = _AttributeReader(self.file, attributes, primitive.get("targets", ()), weights)
        vertices = reader.read("POSITION", 3)
        material, count = self.materials.read(primitive.get("material")), len(vertices)
        name = None if material.color_map is None else material.color_map.uv_name
        uv = None if name is None or name not in attributes else reader.read(name, 2)
        if name is not None and uv is None:
            self.file.add_note(f"a mesh has a texture but no {name}: no colors from it")
        part = Part(vertices, None, material, reader.read_colors(), uv)
        if mode == POINTS:
            normals = reader.read("NORMAL", 3) if "NORMAL" in attributes else None
            rows = attributes.read_point_rows(count)
            return _Shape(part._replace(normals=normals), attributes, rows)
        return _Shape(part._replace(faces=attributes.read_faces(count)), attributes, None)


class _AttributeReader:
    """Read attributes of a primitive with its morph targets applied."""

    def __init__(
        self,
        file: GltfFile,
        attributes: Attributes,
        targets: Sequence[Mapping[str, int]],
        weights: Sequence[float],
    ) -> None:
        self.file, self.attributes, self.targets, self.weights = file, attributes, targets, weights

    def read(self, name: str, width: int) -> Float[np.ndarray, "v c"]:
        values = self.attributes.read(name)
        if values.shape[1] < width or len(values) != self.attributes.num_vertices:
            raise ValueError(f"its {name} has {len(values)} rows of {values.shape[1]} numbers")
        return add_morph_targets(self.file, values[:, :width], name, self.targets, self.weights)

    def read_colors(self) -> Num[np.ndarray, "v 3"] | None:
        """Return the first vertex colors as bytes or fractions, (v, 3); None without colors."""
        if "COLOR_0" not in self.attributes:
            return None
        raw = self.attributes.read_raw("COLOR_0")
        if raw.shape[1] < 3 or len(raw) != self.attributes.num_vertices:
            raise ValueError(f"its COLOR_0 has {len(raw)} rows of {raw.shape[1]} numbers")
        if raw.dtype == np.uint8 and not any(self.weights):
            return raw[:, :3]
        colors = to_floats(raw[:, :3], is_normalized=True)
        colors = add_morph_targets(self.file, colors, "COLOR_0", self.targets, self.weights)
        return colors.clip(0, 1)


def _copy(part: Part, transforms: Float[np.ndarray, "k 4 4"]) -> Part:
    """Return all copies of a primitive; those that are mirrored get their faces turned."""
    count, (num_copies, *_) = len(part.vertices), transforms.shape
    if num_copies == 1 and np.array_equal(transforms[0], np.eye(4)):
        return part
    vertices = part.vertices.astype(np.float64) @ transforms[:, :3, :3].transpose(0, 2, 1)
    vertices += transforms[:, None, :3, 3]
    faces, normals = part.faces, part.normals
    if faces is not None:
        is_mirrored = np.linalg.det(transforms[:, :3, :3]) < 0
        copies = (
            np.repeat(faces[None], num_copies, 0) + count * np.arange(num_copies)[:, None, None]
        )
        copies[is_mirrored] = copies[is_mirrored][:, :, ::-1]
        faces = copies.reshape(-1, 3)
    if normals is not None:
        turned = _transform_normals(normals[None], transforms[:, None, :3, :3])
        normals = turned.reshape(-1, 3)
    return part._replace(
        vertices=vertices.reshape(-1, 3),
        faces=faces,
        colors=None if part.colors is None else np.tile(part.colors, (num_copies, 1)),
        uv=None if part.uv is None else np.tile(part.uv, (num_copies, 1)),
        normals=normals,
    )


def _deform(part: Part, matrices: Float[np.ndarray, "v 4 4"]) -> Part:
    """Return a primitive with the transforms of its joints."""
    faces, normals = part.faces, part.normals
    if faces is not None and len(faces):
        is_mirrored: Bool[np.ndarray, " f"] = np.linalg.det(matrices[:, :3, :3])[faces[:, 0]] < 0
        faces = np.where(is_mirrored[:, None], faces[:, ::-1], faces)
    if normals is not None:
        normals = _transform_normals(normals, matrices[:, :3, :3])
    return part._replace(
        vertices=transform_points(part.vertices, matrices), faces=faces, normals=normals
    )


def _transform_normals(
    normals: Float[np.ndarray, "*n 3"], matrices: Float[np.ndarray, "*m 3 3"]
) -> Float[np.ndarray, "*p 3"]:
    """Return unit normals of transformed surfaces; zero where a matrix has no inverse."""
    first, second, third = (matrices[..., i] for i in range(3))
    cofactors = np.stack(
        [np.cross(second, third), np.cross(third, first), np.cross(first, second)], -1
    )
    turned = np.einsum("...ij,...j->...i", cofactors, normals.astype(np.float64))
    turned *= np.where(np.linalg.det(matrices) < 0, -1.0, 1.0)[..., None]
    length = np.linalg.norm(turned, axis=-1, keepdims=True)
    return np.asarray(turned / np.where(length > 0, length, 1))


def _select(part: Part, rows: Int[np.ndarray, " n"]) -> Part:
    """Return the vertices that points use."""
    return part._replace(
        vertices=part.vertices[rows],
        colors=None if part.colors is None else part.colors[rows],
        uv=None if part.uv is None else part.uv[rows],
        normals=None if part.normals is None else part.normals[rows],
    )
