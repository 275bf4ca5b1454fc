"""Vertices of COLLADA meshes deformed by joints and morph targets."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from recon.data.io.meshes.exchange.collada.mesh import read_accessor, read_points
from recon.data.io.meshes.exchange.xml_files import parse_numbers


class Scene(NamedTuple):
    """What a controller needs of its scene."""

    root: ET.Element
    ids: Mapping[str, ET.Element]
    matrices: Mapping[ET.Element, Float[np.ndarray, "4 4"]]
    """Placements of the nodes."""
    notes: MutableMapping[str, None]


def deform_vertices(
    controller: ET.Element, instance: ET.Element, scene: Scene
) -> tuple[Float[np.ndarray, "v 3"] | None, ET.Element, bool]:
    """Return the vertices of a controller, its mesh, and whether its joints place it in the scene.

    Joints that are missing leave the mesh in its bind pose, which is noted.
    """
    skin, morph = controller.find("skin"), controller.find("morph")
    part = skin if skin is not None else morph
    if part is None:
        raise ValueError("a controller has neither a skin nor a morph")
    source = scene.ids.get(part.get("source", "").removeprefix("#"))
    if source is None:
        raise ValueError(f"a controller refers to {part.get('source')!r:.100}, which is missing")
    if source.tag == "controller":
        if source.find("skin") is not None:
            raise ValueError("a controller refers to a skin")
        vertices, mesh, _ = deform_vertices(source, instance, scene)
        assert vertices is not None
    else:
        vertices, mesh = read_points(source), source
    if skin is None:
        return _morph(vertices, part, scene), mesh, False
    return _pose(vertices, skin, instance, scene, mesh)


def _read_source(part: ET.Element, url: str | None) -> tuple[list[str], Float[np.ndarray, "n k"]]:
    """Return the names, or else the numbers, of a source."""
    source = next((i for i in part.findall("source") if i.get("id") == (url or "")[1:]), None)
    if source is None:
        raise ValueError(f"a controller refers to {url!r:.100}, which is missing")
    names = [i for tag in ("Name_array", "IDREF_array", "SIDREF_array") for i in source.iter(tag)]
    if names:
        return (names[0].text or "").split(), np.empty((0, 1))
    accessor, array = source.find("technique_common/accessor"), source.find("float_array")
    if accessor is None or array is None:
        raise ValueError("a source of a controller has no numbers")
    return [], read_accessor(accessor, parse_numbers(array.text, np.float64))


def _find_inputs(part: ET.Element, path: str) -> dict[str, ET.Element]:
    return {item.get("semantic", ""): item for item in part.findall(f"{path}/input")}


def _morph(
    vertices: Float[np.ndarray, "v 3"], morph: ET.Element, scene: Scene
) -> Float[np.ndarray, "v 3"]:
    inputs = _find_inputs(morph, "targets")
    names, _ = _read_source(morph, inputs["MORPH_TARGET"].get("source"))
    _, weights = _read_source(morph, inputs["MORPH_WEIGHT"].get("source"))
    result = vertices.copy()
    for name, weight in zip(names, weights[:, 0], strict=True):
        if weight:
            target = read_points(scene.ids[name.removeprefix("#")])
            is_relative = morph.get("method") == "RELATIVE"
            result += weight * (target if is_relative else target - vertices)
    return result


def _pose(
    vertices: Float[np.ndarray, "v 3"],
    skin: ET.Element,
    instance: ET.Element,
    scene: Scene,
    mesh: ET.Element,
) -> tuple[Float[np.ndarray, "v 3"], ET.Element, bool]:
    bind_shape = np.eye(4)
    if text := skin.findtext("bind_shape_matrix"):
        bind_shape = parse_numbers(text, np.float64).reshape(4, 4)
    points = vertices @ bind_shape[:3, :3].T + bind_shape[:3, 3]
    inputs = _find_inputs(skin, "joints")
    names, _ = _read_source(skin, inputs["JOINT"].get("source"))
    _, inverse_bind = _read_source(skin, inputs["INV_BIND_MATRIX"].get("source"))
    joints = _find_joints(names, instance, scene)
    if joints is None:
        scene.notes["joints of a skin are missing: it is read in its bind pose"] = None
        return points, mesh, False
    matrices = np.stack([scene.matrices[joint] for joint in joints]) @ inverse_bind.reshape(
        -1, 4, 4
    )
    # The joint -1 is the bind shape itself.
    matrices = np.concatenate([matrices, np.eye(4)[None]])
    rows, joint, weight = _read_weights(skin, len(points), len(names))
    total = np.bincount(rows, weight, len(points))
    blended = np.zeros((len(points), 4, 4))
    np.add.at(blended, rows, weight[:, None, None] * matrices[joint])
    blended[total == 0] = np.eye(4)
    blended[total != 0] /= total[total != 0, None, None]
    return np.einsum("vij,vj->vi", blended[:, :3, :3], points) + blended[:, :3, 3], mesh, True


def _find_joints(names: list[str], instance: ET.Element, scene: Scene) -> list[ET.Element] | None:
    """Return the nodes of joints by their sid below the skeleton, or by id."""
    roots = [
        scene.ids[url]
        for item in instance.findall("skeleton")
        if (url := (item.text or "").strip().removeprefix("#")) in scene.ids
    ]
    found: dict[str, ET.Element] = {}
    for root in [*roots, scene.root]:
        for node in root.iter("node"):
            for name in (node.get("sid"), node.get("id"), node.get("name")):
                if name and node in scene.matrices:
                    found.setdefault(name, node)
    return [found[name] for name in names] if set(names) <= set(found) else None


def _read_weights(
    skin: ET.Element, num_vertices: int, num_joints: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertex, joint and weight of each influence."""
    inputs = _find_inputs(skin, "vertex_weights")
    _, weights = _read_source(skin, inputs["WEIGHT"].get("source"))
    counts = parse_numbers(skin.findtext("vertex_weights/vcount"), np.int64)
    width = 1 + max(int(item.get("offset", 0)) for item in inputs.values())
    pairs = parse_numbers(skin.findtext("vertex_weights/v"), np.int64).reshape(-1, width)
    if len(counts) > num_vertices or (len(counts) and counts.min() < 0):
        raise ValueError(f"its skin has weights of {len(counts)} of {num_vertices} vertices")
    if counts.sum() != len(pairs):
        raise ValueError(f"its skin declares {counts.sum()} weights, it has {len(pairs)}")
    joint = pairs[:, int(inputs["JOINT"].get("offset", 0))]
    weight = pairs[:, int(inputs["WEIGHT"].get("offset", 0))]
    if len(pairs) and not (
        -1 <= int(joint.min()) <= int(joint.max()) < num_joints
        and 0 <= int(weight.min()) <= int(weight.max()) < len(weights)
    ):
        raise ValueError("its skin uses an index outside its joints or weights")
    return np.repeat(np.arange(len(counts)), counts), joint, weights[weight, 0]
