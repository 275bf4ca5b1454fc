"""Measure how well sentences retrieve test shapes of the bundled data: see docs/search.md.

python scripts/reproduce/text_retrieval.py <run>/checkpoints/last.ckpt [<another run's> ...]
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from recon.data.datasets.furniture import Furniture, asset_path
from recon.point_encoder import PointEncoder
from recon.tasks.linear_probe import nearest_neighbors
from recon.tasks.retrieval import RetrievalScores, retrieval_scores
from recon.teachers.cached import CachedTextTeacher
from recon.teachers.tfidf_fallback import encode_sentence

TOP_K = 5


def build_queries(shapes: Furniture) -> dict[str, list[tuple[str, str]]]:
    """Return sentences with their classes, by kind of sentence."""
    classes = shapes.classes
    return {
        "class name, cached": [(name, name) for name in classes],
        "plural, not cached": [(f"{name}s", name) for name in classes],
        "sentence, not cached": [(f"I am looking for a {name}.", name) for name in classes],
        "caption of a test shape": [
            (caption, classes[label])
            for caption, label in zip(shapes.captions, shapes.labels.tolist(), strict=True)
        ],
    }


def evaluate_retrieval(
    projected: Tensor, shapes: Furniture, teacher: CachedTextTeacher
) -> list[RetrievalScores]:
    """Search the test shapes by the sentences of each kind."""
    labels = [shapes.classes[label] for label in shapes.labels.tolist()]
    scores = []
    for queries in build_queries(shapes).values():
        features = torch.stack(
            [encode_sentence(teacher, sentence).feature for sentence, _ in queries]
        )
        hits = nearest_neighbors(features.numpy(), projected.numpy(), TOP_K, standardize=False)
        scores.append(retrieval_scores(hits.indices, [name for _, name in queries], labels))
    return scores


def main() -> None:
    """Print a row per kind of sentence and a column per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    args = parser.parse_args()
    shapes = Furniture(["test"])
    teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
    clouds = [shapes.points(row) for row in range(len(shapes))]
    columns = []
    for path in args.checkpoints:
        projected = PointEncoder(path).encode(clouds).text_projected
        if projected is None:
            raise SystemExit(f"{path}: has no projection of a text query")
        columns.append(evaluate_retrieval(projected, shapes, teacher))
    for row, (kind, queries) in enumerate(build_queries(shapes).items()):
        recalls = " | ".join(column[row].recall.format_percent() for column in columns)
        precisions = " | ".join(f"{100 * column[row].precision.mean:.1f}" for column in columns)
        chance = 100 * columns[0][row].chance_recall
        accuracy = f"recall@5 {recalls}; precision@5 {precisions}; chance recall {chance:.1f}"
        print(f"{kind} ({len(queries)}): {accuracy}")


if __name__ == "__main__":
    main()
