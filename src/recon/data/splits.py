"""Parts of a training split: one held out to validate on, or a share of it alone."""

import warnings

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from recon.data.dataset import DatasetView, PointCloudDataset


def split_train_val(
    dataset: PointCloudDataset, share: float, seed: int
) -> tuple[PointCloudDataset, PointCloudDataset]:
    """Part a labelled data set into shapes to train on and shapes to validate on.

    About `share` of each class is held out, never all of it; near-duplicates (`families`) stay on
    one side. A function of the data set and the seed. Raises ValueError for data without labels, or
    a share that is not between 0 and one half.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"the share held out must lie in (0, 0.5], got {share}")
    if not len(dataset.labels):
        raise ValueError(
            f"{type(dataset).__name__} has no labels to hold out a validation split by"
        )
    if (dataset.labels < 0).any():
        lost = dataset.ids[int(np.flatnonzero(dataset.labels < 0)[0])]
        raise ValueError(f"{lost} has no class: sort it into a folder of one, or take it out")
    folds = min(max(2, round(1 / share)), int(np.bincount(dataset.labels).max()))
    if folds < 2:
        raise ValueError(
            "no class has two shapes: there is nothing to hold out, set val_share=null"
        )
    kind = StratifiedGroupKFold if len(dataset.families) else StratifiedKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    families = dataset.families if len(dataset.families) else None
    with warnings.catch_warnings():
        # Of a class with fewer shapes than folds some folds have none: so be it.
        warnings.filterwarnings("ignore", "The least populated class")
        train, held = next(splitter.split(np.zeros(len(dataset)), dataset.labels, families))
    alone = ~np.isin(dataset.labels[held], dataset.labels[train])
    return _some(dataset, np.append(train, held[alone])), _some(dataset, held[~alone])


def stratified_subset(dataset: PointCloudDataset, fraction: float, seed: int) -> PointCloudDataset:
    """Draw a share of each class, or of all where there are none, one sample at least.

    Smaller shares lie within larger ones. Raises ValueError for a fraction that is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction to train on must lie in (0, 1], got {fraction}")
    if fraction == 1:
        return dataset
    order = np.random.default_rng(seed).permutation(len(dataset))
    labels = dataset.labels[order] if len(dataset.labels) else np.zeros(len(dataset), int)
    of_class = [order[labels == label] for label in np.unique(labels)]
    return _some(dataset, np.concatenate([r[: max(1, round(fraction * len(r)))] for r in of_class]))


def _some(dataset: PointCloudDataset, rows: Int[np.ndarray, " n"]) -> DatasetView:
    return DatasetView([dataset], [(0, int(row)) for row in np.sort(rows)])
