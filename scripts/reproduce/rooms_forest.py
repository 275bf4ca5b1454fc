"""Segment rooms by a random forest on height, color and local geometry, as a baseline.

python scripts/reproduce/rooms_forest.py data/rooms --area 5

Trains on sampled points of the other areas, and tests on all points of --area. Prints the IoU
of each class, for comparison with `experiment=semseg_rooms`.
"""

import argparse

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from scipy.spatial import cKDTree
from sklearn.ensemble import RandomForestClassifier

from recon.data.dataset import Cloud
from recon.data.datasets.s3dis import AREAS, S3DISRooms
from recon.tasks.iou import confusion, scene_scores

FURNITURE = ("table", "chair", "sofa", "bookcase")
NEIGHBOR_COUNTS = (16, 64)


def compute_features(room: Cloud, tree: cKDTree, rows: np.ndarray) -> Float[np.ndarray, "n e"]:
    """Compute height, color, and the eigenvalues and directions of each point's neighborhood."""
    points, features = room.points[rows], []
    low, high = room.points.min(0), room.points.max(0)
    features.append(np.stack([points[:, 2] - low[2], high[2] - points[:, 2]], 1))
    edge = np.minimum(points[:, :2] - low[:2], high[:2] - points[:, :2]).min(1, keepdims=True)
    assert room.colors is not None
    features += [edge, room.colors[rows] / 255.0]
    for count in NEIGHBOR_COUNTS:
        near = room.points[tree.query(points, count)[1]]
        near = near - near.mean(1, keepdims=True)
        values, vectors = np.linalg.eigh(near.transpose(0, 2, 1) @ near / count)
        share = values / np.maximum(values.sum(1, keepdims=True), 1e-12)
        features += [share, np.abs(vectors[:, 2, :]), np.ptp(near[:, :, 2], axis=1)[:, None]]
    return np.concatenate(features, 1).astype(np.float32)


def main() -> None:
    """Train and test the forest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--area", type=int, default=5)
    parser.add_argument(
        "--points", type=int, default=4000, help="points sampled from each training room"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, held_out = np.random.default_rng(args.seed), f"Area_{args.area}"
    x, y = [], []
    for area in track([name for name in AREAS if name != held_out], "training"):
        rooms = S3DISRooms(args.root, area)
        for number in range(len(rooms)):
            room = rooms.cloud(number)
            assert room.point_labels is not None
            rows = rng.choice(len(room.points), min(args.points, len(room.points)), replace=False)
            x.append(compute_features(room, cKDTree(room.points), rows))
            y.append(room.point_labels[rows])
    forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=args.seed)
    forest.fit(np.concatenate(x), np.concatenate(y))
    rooms = S3DISRooms(args.root, held_out)
    classes = len(rooms.point_classes)
    counts = torch.zeros(classes, classes, dtype=torch.long)
    for number in track(range(len(rooms)), "testing"):
        room = rooms.cloud(number)
        predicted = forest.predict(
            compute_features(room, cKDTree(room.points), np.arange(len(room.points)))
        )
        labels = torch.from_numpy(room.point_labels)
        counts += confusion(torch.from_numpy(predicted), labels, classes)
    scores = scene_scores(counts)
    for name, value in zip(rooms.point_classes, scores.iou.tolist(), strict=True):
        print(f"{name:10} {100 * value:5.1f}")
    furniture = [rooms.point_classes.index(name) for name in FURNITURE]
    furniture_miou = 100 * scores.iou[furniture].mean()
    print(f"mIoU {100 * scores.miou:.1f}, of {', '.join(FURNITURE)} {furniture_miou:.1f}")


if __name__ == "__main__":
    main()
