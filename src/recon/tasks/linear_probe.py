"""What frozen features are worth: linear SVM and zero-shot accuracy, with intervals."""

import warnings
from copy import deepcopy
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
from torch import Tensor, nn

from recon.data.dataset import PointCloudDataset
from recon.data.datasets.furniture import Furniture
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

    def percent(self, sign: str = "") -> str:
        """Write fractions as percents, e.g. `68.1 [60.3, 75.9]`."""
        return f"{100 * self.mean:{sign}.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class Row(NamedTuple):
    """One kind of features, and how well a linear SVM tells the classes by them."""

    accuracy: Interval
    predicted: Int[np.ndarray, " n"]
    """Class of each test shape."""
    chosen: str
    """Scaling and C, as cross-validation chose them."""


class Results(NamedTuple):
    """What frozen features are worth on labelled shapes."""

    rows: dict[str, Row]
    """By network, `pretrained` among them, and a geometric `descriptor`."""
    gains: dict[str, Interval]
    """Accuracy of `pretrained` minus that of each other row, paired by test shape."""
    zero_shot: dict[str, Interval]
    """By network; empty where the networks project no text query."""


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


@torch.no_grad()
def with_batch_statistics(
    network: PretrainingNetwork, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> PretrainingNetwork:
    """Return a copy whose BatchNorm statistics are those of the clouds; nothing is learned.

    A fresh network normalises by statistics that fit nothing. This is the fairer control: what
    remains of a gain over it is due to learned weights.
    """
    copy = deepcopy(network).train()
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches
    device = next(copy.parameters()).device
    for batch in torch.split(clouds, batch_size):
        copy.projections(copy.encode(batch.to(device)).queries)
    return copy.eval()


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
        Pipeline([("scale", StandardScaler()), ("svm", LinearSVC(dual=False))]),
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


def svm_row(
    train: Float[np.ndarray, "n e"],
    test: Float[np.ndarray, "m e"],
    shapes: tuple[Furniture, Furniture],
) -> Row:
    """Fit on the train split, read once on the test split."""
    search = linear_svm(train, shapes[0].labels, shapes[0].families)
    predicted = search.predict(test)
    scale = "standardised" if search.best_params_["scale"] != "passthrough" else "raw"
    chosen = f"{scale}, C = {search.best_params_['svm__C']:g}"
    return Row(interval(predicted == shapes[1].labels), predicted, chosen)


def measure(
    networks: dict[str, tuple[Features, Features]],
    clouds: tuple[Float[Tensor, "n p 3"], Float[Tensor, "m p 3"]],
    shapes: tuple[Furniture, Furniture],
    class_features: Float[Tensor, "c d"] | None,
) -> Results:
    """Compare the features of networks on train and test shapes, and a descriptor's, by one rule.

    `class_features` are a text teacher's of the class names.
    """
    labels = shapes[1].labels
    pooled = {name: (train.pooled, test.pooled) for name, (train, test) in networks.items()}
    pooled["descriptor"] = (shape_descriptor(clouds[0]), shape_descriptor(clouds[1]))
    rows = {name: svm_row(*values, shapes) for name, values in pooled.items()}
    right = {name: (row.predicted == labels).astype(float) for name, row in rows.items()}
    best = right.pop("pretrained")
    gains = {name: interval(best - other) for name, other in right.items()}
    zero = {}
    if class_features is not None:
        for name, (_, test) in networks.items():
            zero[name] = interval(zero_shot(test.queries["text"], class_features) == labels)
    return Results(rows, gains, zero)


class Hits(NamedTuple):
    """The `k` of a gallery most like each query, the most alike first."""

    rows: Int[np.ndarray, "n k"]
    similarity: Float[np.ndarray, "n k"]


def nearest(
    queries: Float[np.ndarray, "n e"],
    gallery: Float[np.ndarray, "m e"],
    count: int,
    *,
    standardize: bool = True,
) -> Hits:
    """Find the rows of a gallery most like each query by cosine; `count` of them, or all.

    `standardize` centres and scales each feature by the gallery's own spread before.
    """
    if standardize:
        scaler = StandardScaler().fit(gallery)
        queries, gallery = scaler.transform(queries), scaler.transform(gallery)
    q, g = (F.normalize(torch.from_numpy(x), dim=-1) for x in (queries, gallery))
    found = (q @ g.T).topk(min(count, len(g)), dim=1)
    return Hits(found.indices.numpy(), found.values.numpy())
