"""Measure the similarity of features of one shape between random samples of its surface.

python scripts/sampling_robustness.py <run>/checkpoints/last.ckpt
Prints cosine similarities between the features of 1,024 points and those of other samples of the
same surface, over simple solids. For comparison it also prints the similarity between different
solids.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cosine_similarity

from recon.point_encoder import PointEncoder

POINT_COUNTS = (1024, 2048, 8192, 100_000)
FEATURES = ("pooled", "cls", "image_projected", "text_projected")


def make_solids() -> dict[str, trimesh.Trimesh]:
    """Return solids of different shapes; the table and the chair consist of several solids."""
    creation = trimesh.creation

    def make_legs(height: float) -> list[trimesh.Trimesh]:
        positions = [(x, z) for x in (-0.9, 0.9) for z in (-0.5, 0.5)]
        return [
            creation.box((0.1, height, 0.1)).apply_translation((x, -height / 2, z))
            for x, z in positions
        ]

    table = trimesh.util.concatenate([creation.box((2.0, 0.1, 1.2)), *make_legs(1.0)])
    back = creation.box((0.1, 1.2, 1.1)).apply_translation((-0.9, 0.6, 0))
    chair = trimesh.util.concatenate([creation.box((1.9, 0.1, 1.1)), back, *make_legs(0.8)])
    return {
        "ball": creation.icosphere(subdivisions=4),
        "box": creation.box((2.0, 1.0, 0.6)),
        "cylinder": creation.cylinder(radius=0.4, height=2.0),
        "ring": creation.torus(major_radius=1.0, minor_radius=0.25),
        "capsule": creation.capsule(height=1.5, radius=0.5),
        "table": table,
        "chair": chair,
    }


def sample_surface(solid: trimesh.Trimesh, count: int, seed: int) -> Float[np.ndarray, "n 3"]:
    """Draw points uniformly from a surface."""
    return np.asarray(trimesh.sample.sample_surface(solid, count, seed=seed)[0], dtype=np.float32)


def compute_cosines(encoder: PointEncoder) -> dict[str, dict[str, Float[Tensor, " n"]]]:
    """Return cosine similarities to the features of 1,024 points, by feature and by sample."""
    solids = make_solids()
    samples = {f"{n:,} points": (n, 1) for n in POINT_COUNTS[1:]}
    samples = {"1,024 other points": (POINT_COUNTS[0], 1)} | samples
    reference = encoder.encode(
        [sample_surface(solid, POINT_COUNTS[0], 0) for solid in solids.values()]
    )
    cosines: dict[str, dict[str, Tensor]] = {}
    for label, (count, seed) in samples.items():
        other = encoder.encode([sample_surface(solid, count, seed) for solid in solids.values()])
        for name in FEATURES:
            if (feature := getattr(reference, name)) is not None:
                similarity = cosine_similarity(feature, getattr(other, name), dim=-1)
                cosines.setdefault(name, {})[label] = similarity
    for name, rows in cosines.items():
        feature = getattr(reference, name)
        pairs = combinations(range(len(solids)), 2)
        rows["another solid"] = torch.stack(
            [cosine_similarity(feature[a], feature[b], dim=0) for a, b in pairs]
        )
    return cosines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of cosine similarities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint, a saved folder, or owner/name of the Hub")
    encoder = PointEncoder(parser.parse_args(arguments).checkpoint)
    cosines = compute_cosines(encoder)
    table = Table(
        "1,024 points against", *cosines, box=SIMPLE, title="Cosine similarity: mean (lowest)"
    )
    for label in next(iter(cosines.values())):
        cells = [f"{rows[label].mean():.3f} ({rows[label].min():.3f})" for rows in cosines.values()]
        table.add_row(label, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
