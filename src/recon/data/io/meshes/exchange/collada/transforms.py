"""Transformations of COLLADA nodes as matrices for column vectors."""

import xml.etree.ElementTree as ET

import numpy as np
from jaxtyping import Float

from recon.data.io.meshes.exchange.xml_files import parse_numbers

NUM_VALUES = {"matrix": 16, "translate": 3, "rotate": 4, "scale": 3, "skew": 7, "lookat": 9}
"""Numbers of each kind of transformation."""


def read_matrix(node: ET.Element) -> Float[np.ndarray, "4 4"]:
    """Multiply the transformations of a node in their order."""
    matrix = np.eye(4)
    for child in node:
        if child.tag in NUM_VALUES:
            values = parse_numbers(child.text, np.float64)
            if len(values) != NUM_VALUES[child.tag] or not np.isfinite(values).all():
                raise ValueError(f"its {child.tag} has {len(values)} numbers")
            matrix = matrix @ _make_matrix(child.tag, values)
    return matrix


def _make_matrix(kind: str, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    if kind == "matrix":
        return values.reshape(4, 4)
    if kind == "translate":
        matrix[:3, 3] = values
    elif kind == "scale":
        np.fill_diagonal(matrix[:3, :3], values)
    elif kind == "rotate":
        matrix[:3, :3] = _rotate(values[:3], values[3])
    elif kind == "skew":
        matrix[:3, :3] = _skew(values[0], values[1:4], values[4:])
    else:
        matrix = _look_at(values[:3], values[3:6], values[6:])
    return matrix


def _rotate(axis: Float[np.ndarray, " 3"], degrees: float) -> Float[np.ndarray, "3 3"]:
    length = np.linalg.norm(axis)
    if length == 0:
        return np.eye(3)
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _skew(
    degrees: float, rotated: Float[np.ndarray, " 3"], along: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "3 3"]:
    """Shear `rotated` by an angle towards the axis `along`, as RenderMan does."""
    along = along / np.linalg.norm(along)
    rotated = rotated / np.linalg.norm(rotated)
    cosine = float(rotated @ along)
    sine = np.sqrt(max(1 - cosine**2, 0))
    across = (rotated - cosine * along) / sine
    angle = np.arctan2(sine, cosine) - np.radians(degrees)
    shift = np.cos(angle) / np.sin(angle) - cosine / sine
    return np.eye(3) + shift * np.outer(along, across)


def _look_at(
    eye: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"], up: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "4 4"]:
    """Place an object at `eye` so that it looks along its -z at `target`, with its y up."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, eye], 1)
    return matrix
