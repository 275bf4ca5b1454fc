"""Place the meshes of a glTF scene: the node tree, its transforms and instances."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.gltf.accessors import read_floats
from recon.data.io.meshes.gltf.container import GltfFile

MAX_NODES = 2**17
"""Maximum number of nodes of a file; each takes some microseconds."""
INSTANCING = "EXT_mesh_gpu_instancing"
VISIBILITY = "KHR_node_visibility"


class Placement(NamedTuple):
    """A mesh of a node of the scene."""

    mesh: int
    transforms: Float[np.ndarray, "k 4 4"]
    """Transforms to the scene, one for each copy of the mesh."""
    skin: int | None
    weights: tuple[float, ...] | None
    """Weights of the morph targets, if the node has its own."""


def place_meshes(file: GltfFile) -> tuple[list[Placement], Mapping[int, np.ndarray]]:
    """Return the meshes of the scene, and the global transforms of all nodes.

    The scene is the default one, or else the first, or else all nodes. Notes tell which meshes are
    outside it or hidden. Raises ValueError if the nodes do not form trees.
    """
    nodes = file.json.get("nodes", [])
    if len(nodes) > MAX_NODES:
        raise UnsupportedContentError(
            f"it has {len(nodes):,} nodes, the maximum is {MAX_NODES:,}: merge or remove nodes"
        )
    parents = _find_parents(file, nodes)
    transforms, hidden = _compute_transforms(file, nodes, parents)
    shown = _list_scene_nodes(file, parents)
    placed = [row for row in shown if "mesh" in nodes[row] and row not in hidden]
    num_meshes = sum("mesh" in node for node in nodes)
    num_hidden = sum("mesh" in nodes[row] for row in shown) - len(placed)
    if num_hidden:
        file.notes.append(f"{num_hidden:,} nodes with meshes are hidden: omitted")
    if num_outside := num_meshes - num_hidden - len(placed):
        file.notes.append(f"{num_outside:,} nodes with meshes are not in the scene: omitted")
    return [_place(file, nodes[row], transforms[row]) for row in placed], transforms


def _place(file: GltfFile, node: dict[str, Any], transform: np.ndarray) -> Placement:
    copies = transform[None]
    if instances := node.get("extensions", {}).get(INSTANCING):
        copies = transform @ _read_instances(file, instances["attributes"])
    weights = node.get("weights")
    own_weights = None if weights is None else tuple(map(float, weights))
    return Placement(node["mesh"], copies, node.get("skin"), own_weights)


def _find_parents(file: GltfFile, nodes: Sequence[Any]) -> dict[int, int]:
    """Return the parent of each node that has one."""
    parents = dict[int, int]()
    for row in range(len(nodes)):
        for child in file.item("nodes", row).get("children", ()):
            file.item("nodes", child)
            if child in parents:
                raise ValueError(f"its nodes do not form a tree: node {child} has two parents")
            parents[child] = row
    return parents


def _compute_transforms(
    file: GltfFile, nodes: Sequence[dict[str, Any]], parents: Mapping[int, int]
) -> tuple[dict[int, np.ndarray], set[int]]:
    """Return the global transform of each node, (4, 4), and the nodes that are hidden."""
    transforms, hidden = dict[int, np.ndarray](), set[int]()
    waiting = [row for row in range(len(nodes)) if row not in parents]
    while waiting:
        row = waiting.pop()
        node, parent = nodes[row], parents.get(row)
        local = read_transform(node)
        transforms[row] = local if parent is None else transforms[parent] @ local
        is_visible = node.get("extensions", {}).get(VISIBILITY, {}).get("visible", True)
        if not is_visible or parent in hidden:
            hidden.add(row)
        waiting += node.get("children", ())
    if len(transforms) < len(nodes):
        raise ValueError("its nodes do not form a tree: some are their own ancestors")
    return transforms, hidden


def _list_scene_nodes(file: GltfFile, parents: Mapping[int, int]) -> list[int]:
    """Return the nodes of the scene that is read, in the order of the tree."""
    nodes, scenes = file.json.get("nodes", []), file.json.get("scenes", [])
    roots = [row for row in range(len(nodes)) if row not in parents]
    if scenes:
        number = file.json.get("scene", 0)
        roots = file.item("scenes", number).get("nodes", [])
        if len(scenes) > 1:
            file.notes.append(f"it has {len(scenes):,} scenes: only scene {number} is read")
    order, waiting, seen = list[int](), [*reversed(roots)], set[int]()
    while waiting:
        row = waiting.pop()
        node = file.item("nodes", row)
        if row not in seen:
            seen.add(row)
            order.append(row)
            waiting += reversed(node.get("children", ()))
    return order


def read_transform(node: Mapping[str, Any]) -> Float[np.ndarray, "4 4"]:
    """Return the matrix of a node, or that of its scale, rotation and translation."""
    if "matrix" in node:
        return np.asarray(node["matrix"], np.float64).reshape(4, 4).T
    if not ("translation" in node or "rotation" in node or "scale" in node):
        return np.eye(4)
    defaults = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
    parts = [np.asarray([node.get(name, value)], float) for name, value in defaults.items()]
    return compose(*parts)[0]


def compose(
    translation: Float[np.ndarray, "k 3"],
    rotation: Float[np.ndarray, "k 4"],
    scale: Float[np.ndarray, "k 3"],
) -> Float[np.ndarray, "k 4 4"]:
    """Return matrices that scale, rotate by quaternions x y z w, and translate."""
    norm = np.linalg.norm(rotation, axis=1, keepdims=True)
    x, y, z, w = (rotation / np.where(norm > 0, norm, 1)).T
    matrices = np.zeros((len(translation), 4, 4))
    matrices[:, 0, :3] = np.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1
    )
    matrices[:, 1, :3] = np.stack(
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1
    )
    matrices[:, 2, :3] = np.stack(
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1
    )
    matrices[:, :3, :3] *= scale[:, None, :]
    matrices[:, :3, 3] = translation
    matrices[:, 3, 3] = 1
    return matrices


def _read_instances(file: GltfFile, attributes: Mapping[str, int]) -> Float[np.ndarray, "k 4 4"]:
    """Return the transforms of EXT_mesh_gpu_instancing."""
    widths = {"TRANSLATION": 3, "ROTATION": 4, "SCALE": 3}
    columns = {
        name: np.asarray(read_floats(file, attributes[name]), np.float64)
        for name in widths
        if name in attributes
    }
    counts = {len(values) for values in columns.values()}
    if len(counts) > 1 or any(v.shape[1] != widths[n] for n, v in columns.items()):
        raise ValueError(f"the transforms of its instances have {sorted(counts)} rows")
    count = counts.pop() if counts else _count_instances(file, attributes)
    defaults = {"TRANSLATION": (0, 0, 0), "ROTATION": (0, 0, 0, 1), "SCALE": (1, 1, 1)}
    parts = [
        columns.get(name, np.broadcast_to(np.asarray(value, float), (count, len(value))))
        for name, value in defaults.items()
    ]
    return compose(*parts)


def _count_instances(file: GltfFile, attributes: Mapping[str, int]) -> int:
    """Return the number of instances that have no transforms, only other attributes."""
    names = sorted(attributes)
    return len(read_floats(file, attributes[names[0]])) if names else 1
