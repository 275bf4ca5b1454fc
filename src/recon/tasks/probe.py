"""What frozen features are worth: linear SVM and zero-shot accuracy, with intervals."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import pdist
from scipy.stats import bootstrap
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from recon.data.dataset import PointCloudDataset
from recon.data.transforms import FarthestSubset
from recon.models.recon import PretrainingNetwork

FOLDS = 4
COSTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class Features(NamedTuple):
    """What a frozen network says of each cloud of a data set."""

    pooled: Float[np.ndarray, "n e"]
    queries: dict[str, Float[Tensor, "n _"]]
    """Projected queries, by modality."""


def interval(values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"], seed: int = 0) -> Interval:
    """Return the mean of values, with a percentile bootstrap interval over them."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:  # no spread to resample
        return Interval(*[float(values[0])] * 3)
    found = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed, vectorized=True
    ).confidence_interval
    return Interval(float(values.mean()), float(found.low), float(found.high))


def stack_clouds(dataset: PointCloudDataset, count: int) -> Float[Tensor, "n count 3"]:
    """Read clouds of equal size and reduce each to `count` points by farthest point sampling."""
    clouds = torch.from_numpy(np.stack([dataset.points(i) for i in range(len(dataset))]))
    return FarthestSubset(count)(clouds)


@torch.no_grad()
def extract(
    network: PretrainingNetwork, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> Features:
    """Encode whole clouds by a network in evaluation mode."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    pooled, queries = [], []
    for batch in torch.split(clouds, batch_size):
        encoding = network.encode(batch.to(device))
        pooled.append(encoding.pooled().cpu())
        queries.append(network.projections(encoding.queries))
    network.train(training)
    names = queries[0]
    return Features(
        torch.cat(pooled).numpy(),
        {name: torch.cat([q[name].cpu() for q in queries]) for name in names},
    )


def shape_descriptor(clouds: Float[Tensor, "n p 3"], bins: int = 64) -> Float[np.ndarray, "n e"]:
    """Describe clouds without learning: a histogram of pairwise distances (D2) and the box [1].

    [1] Osada et al., Shape Distributions, ACM TOG 2002.
    """
    rows = []
    for cloud in clouds.numpy():
        distances = pdist(cloud[:: max(1, len(cloud) // 512)])
        histogram, _ = np.histogram(distances, bins=bins, range=(0.0, 2.0), density=True)
        rows.append(np.concatenate([histogram, np.ptp(cloud, axis=0)]))
    return np.stack(rows)


def linear_svm(
    features: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    families: Int[np.ndarray, " n"],
) -> GridSearchCV:
    """Fit a linear SVM; scaling and C are chosen by cross-validation in these very data.

    Families (of near-duplicates) stay together in the folds.
    """
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("svm", LinearSVC(max_iter=5_000))]),
        {"scale": [StandardScaler(), "passthrough"], "svm__C": COSTS},
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0),
        n_jobs=1,
    )
    with warnings.catch_warnings():
        # Large C on raw features needs not converge to be compared, and loses.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return search.fit(features, labels, groups=families)


def zero_shot(
    queries: Float[Tensor, "n d"], classes: Float[Tensor, "c d"]
) -> Int[np.ndarray, " n"]:
    """Return the class whose feature is most like each query, by cosine."""
    similarity = F.normalize(queries, dim=-1) @ F.normalize(classes, dim=-1).T
    return similarity.argmax(1).numpy()


def nearest(
    queries: Float[np.ndarray, "n e"], gallery: Float[np.ndarray, "m e"], count: int
) -> Int[np.ndarray, "n count"]:
    """Return the gallery's rows most like each query, by cosine of standardised features."""
    scaler = StandardScaler().fit(gallery)
    q, g = (torch.from_numpy(scaler.transform(x)) for x in (queries, gallery))
    similarity = F.normalize(q, dim=-1) @ F.normalize(g, dim=-1).T
    return similarity.topk(count, dim=1).indices.numpy()
