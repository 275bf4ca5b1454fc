"""How close the features of one shape stay when it is sampled more densely, or on another day.

python scripts/sampling_robustness.py <run>/checkpoints/last.ckpt
Prints cosines to the features of 1,024 points, over surfaces of simple solids, whose density is
known, beside those of different solids: features that were all alike would be close as well.
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
    """Return solids of unlike form; a few of them composed, as furniture is."""
    make = trimesh.creation

    def legs(height: float) -> list[trimesh.Trimesh]:
        places = [(x, z) for x in (-0.9, 0.9) for z in (-0.5, 0.5)]
        return [
            make.box((0.1, height, 0.1)).apply_translation((x, -height / 2, z)) for x, z in places
        ]

    table = trimesh.util.concatenate([make.box((2.0, 0.1, 1.2)), *legs(1.0)])
    back = make.box((0.1, 1.2, 1.1)).apply_translation((-0.9, 0.6, 0))
    chair = trimesh.util.concatenate([make.box((1.9, 0.1, 1.1)), back, *legs(0.8)])
    return {
        "ball": make.icosphere(subdivisions=4),
        "box": make.box((2.0, 1.0, 0.6)),
        "cylinder": make.cylinder(radius=0.4, height=2.0),
        "ring": make.torus(major_radius=1.0, minor_radius=0.25),
        "capsule": make.capsule(height=1.5, radius=0.5),
        "table": table,
        "chair": chair,
    }


def sample_surface(solid: trimesh.Trimesh, count: int, seed: int) -> Float[np.ndarray, "n 3"]:
    """Draw points evenly from a surface."""
    return np.asarray(trimesh.sample.sample_surface(solid, count, seed=seed)[0], dtype=np.float32)


def compute_cosines(encoder: PointEncoder) -> dict[str, dict[str, Float[Tensor, " n"]]]:
    """Return cosines by feature and by what is compared with 1,024 points."""
    shapes = make_solids()
    drawn = {f"{n:,} points": (n, 1) for n in POINT_COUNTS[1:]}
    drawn = {"1,024 other points": (POINT_COUNTS[0], 1)} | drawn
    first = encoder.encode([sample_surface(solid, POINT_COUNTS[0], 0) for solid in shapes.values()])
    rows: dict[str, dict[str, Tensor]] = {}
    for what, (count, seed) in drawn.items():
        found = encoder.encode([sample_surface(solid, count, seed) for solid in shapes.values()])
        for name in FEATURES:
            known, other = getattr(first, name), getattr(found, name)
            if known is not None:
                rows.setdefault(name, {})[what] = cosine_similarity(known, other, dim=-1)
    for name, held in rows.items():
        known = getattr(first, name)
        pairs = combinations(range(len(shapes)), 2)
        held["another solid"] = torch.stack(
            [cosine_similarity(known[a], known[b], dim=0) for a, b in pairs]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a checkpoint, a saved folder, or owner/name of the Hub")
    encoder = PointEncoder(parser.parse_args(arguments).source)
    found = compute_cosines(encoder)
    table = Table("1,024 points against", *found, box=SIMPLE, title="Cosine: mean (lowest)")
    for what in next(iter(found.values())):
        values = [f"{held[what].mean():.3f} ({held[what].min():.3f})" for held in found.values()]
        table.add_row(what, *values)
    Console().print(table)


if __name__ == "__main__":
    main()
