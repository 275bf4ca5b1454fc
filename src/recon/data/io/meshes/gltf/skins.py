"""Deform the vertices of glTF meshes by morph targets and by the joints of skins."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from recon.data.io.meshes.gltf.accessors import read_floats
from recon.data.io.meshes.gltf.attributes import Attributes
from recon.data.io.meshes.gltf.container import GltfFile


def add_morph_targets(
    file: GltfFile,
    values: Float[np.ndarray, "v c"],
    name: str,
    targets: Sequence[Mapping[str, int]],
    weights: Sequence[float],
) -> Float[np.ndarray, "v c"]:
    """Return the values of an attribute moved by the weighted morph targets that change it."""
    for target, weight in zip(targets, weights, strict=False):
        if weight and name in target:
            change = read_floats(file, target[name])
            width = min(values.shape[1], change.shape[1])
            values = values.astype(np.float64)
            values[:, :width] += weight * change[:, :width]
    return values


class Skins:
    """Compute where the joints of a file's skins place vertices.

    `transforms` are the global transforms of all nodes. The transform of the node that has the
    mesh does not count.
    """

    def __init__(self, file: GltfFile, transforms: Mapping[int, np.ndarray]) -> None:
        self.file, self.transforms = file, transforms
        self._joints: dict[int, np.ndarray] = {}

    def blend(self, skin: int, attributes: Attributes) -> Float[np.ndarray, "v 4 4"] | None:
        """Return the transform of each vertex, None for a primitive without joints."""
        matrices = self._read_joints(skin)
        total, weight_sum = np.zeros(()), np.zeros(())
        number = 0
        while f"JOINTS_{number}" in attributes and f"WEIGHTS_{number}" in attributes:
            joints = attributes.read_raw(f"JOINTS_{number}").astype(np.int64)
            weights = attributes.read(f"WEIGHTS_{number}").astype(np.float64)
            if joints.size and not 0 <= int(joints.min()) <= int(joints.max()) < len(matrices):
                joints = _check_used(joints, weights, len(matrices))
            for column in range(joints.shape[1]):
                weight = weights[:, column]
                if weight.any():
                    total = total + weight[:, None, None] * matrices[joints[:, column]]
            weight_sum, number = weight_sum + weights.sum(1), number + 1
        if not number or not total.ndim:
            return None
        weight_sum = np.where(weight_sum > 0, weight_sum, 1)
        return np.asarray(total / weight_sum[:, None, None])

    def _read_joints(self, index: int) -> Float[np.ndarray, "j 4 4"]:
        if index not in self._joints:
            skin = self.file.item("skins", index)
            nodes = [row for row in skin["joints"] if self.file.item("nodes", row)]
            matrices = np.stack([self.transforms[row] for row in skin["joints"]])
            if skin.get("inverseBindMatrices") is not None:
                inverse = read_floats(self.file, skin["inverseBindMatrices"])
                if inverse.shape[1] != 16 or len(inverse) < len(nodes):
                    raise ValueError(f"a skin of {len(nodes)} joints has {len(inverse)} matrices")
                columns = inverse[: len(matrices)].reshape(-1, 4, 4).astype(np.float64)
                matrices = matrices @ columns.transpose(0, 2, 1)
            self._joints[index] = matrices
        return self._joints[index]


def _check_used(joints: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Replace joints without weight by the first; raise ValueError for others out of range."""
    joints = np.where(weights > 0, joints, 0)
    if not 0 <= int(joints.min()) <= int(joints.max()) < count:
        raise ValueError(f"a vertex has the joint {joints.max()} of {count}")
    return joints


def transform_points(
    points: Float[np.ndarray, "v 3"], matrices: Float[np.ndarray, "v 4 4"]
) -> Float[np.ndarray, "v 3"]:
    """Apply to each point its own matrix."""
    moved: np.ndarray = np.einsum("vij,vj->vi", matrices[:, :3, :3], points)
    return moved + matrices[:, :3, 3]
