"""Split a training set: hold out a validation set, or draw a stratified subset."""

import warnings

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from recon.data.dataset import DatasetView, PointCloudDataset


def split_train_val(
    dataset: PointCloudDataset, share: float, seed: int
) -> tuple[PointCloudDataset, PointCloudDataset]:
    """Split a labeled data set into a training and a validation set.

    About `share` of each class is held out, never all of it. Near-duplicates (`families`) stay on
    one side. The result depends only on the data set and the seed. Raises ValueError for data
    without labels, or a share outside (0, 0.5].
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"val_share must be in (0, 0.5], got {share}")
    if not len(dataset.labels):
        raise ValueError(
            f"{type(dataset).__name__} has no labels for a stratified validation split: "
            "set val_share=null"
        )
    if (dataset.labels < 0).any():
        unlabeled = dataset.ids[int(np.flatnonzero(dataset.labels < 0)[0])]
        raise ValueError(f"{unlabeled} has no class: move it into a class folder, or remove it")
    folds = min(max(2, round(1 / share)), int(np.bincount(dataset.labels).max()))
    if folds < 2:
        raise ValueError("no class has two shapes: nothing can be held out, set val_share=null")
    splitter_class = StratifiedGroupKFold if len(dataset.families) else StratifiedKFold
    splitter = splitter_class(folds, shuffle=True, random_state=seed)
    families = dataset.families if len(dataset.families) else None
    with warnings.catch_warnings():
        # A class with fewer shapes than folds is absent from some folds, which is accepted here.
        warnings.filterwarnings("ignore", "The least populated class")
        train, val = next(splitter.split(np.zeros(len(dataset)), dataset.labels, families))
    # Classes that are only in the validation rows move back to training.
    only_val = ~np.isin(dataset.labels[val], dataset.labels[train])
    return (
        _select_rows(dataset, np.append(train, val[only_val])),
        _select_rows(dataset, val[~only_val]),
    )


def stratified_subset(dataset: PointCloudDataset, fraction: float, seed: int) -> PointCloudDataset:
    """Draw a share of each class, or of all samples without labels, at least one sample each.

    Smaller subsets are contained in larger ones. Raises ValueError for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    if fraction == 1:
        return dataset
    order = np.random.default_rng(seed).permutation(len(dataset))
    labels = dataset.labels[order] if len(dataset.labels) else np.zeros(len(dataset), int)
    rows_by_class = [order[labels == label] for label in np.unique(labels)]
    subsets = [rows[: max(1, round(fraction * len(rows)))] for rows in rows_by_class]
    return _select_rows(dataset, np.concatenate(subsets))


def _select_rows(dataset: PointCloudDataset, rows: Int[np.ndarray, " n"]) -> DatasetView:
    return DatasetView([dataset], [(0, int(row)) for row in np.sort(rows)])
