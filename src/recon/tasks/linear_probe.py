"""Evaluate frozen features by linear SVM and zero-shot accuracy, with confidence intervals."""

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
from recon.data.transforms import FarthestPointSample
from recon.models.recon import PretrainingNetwork
from recon.tasks.training_mode import evaluation_mode

NUM_FOLDS = 4
SVM_COSTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BOOTSTRAP_RESAMPLES = 10_000


class ConfidenceInterval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def format_percent(self, sign: str = "") -> str:
        """Format as percentages, for example `68.1 [60.3, 75.9]`."""
        return f"{100 * self.mean:{sign}.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class ProbeResult(NamedTuple):
    """Test accuracy of a linear SVM on one kind of features."""

    accuracy: ConfidenceInterval
    predicted: Int[np.ndarray, " n"]
    """Predicted class of each test shape."""
    hyperparameters: str
    """Scaling and C chosen by cross-validation."""


class ProbeResults(NamedTuple):
    """Linear SVM and zero-shot accuracy of frozen features on labeled shapes."""

    svm: dict[str, ProbeResult]
    """Results by network, including `pretrained`, and of a geometric `descriptor`."""
    paired_differences: dict[str, ConfidenceInterval]
    """Accuracy of `pretrained` minus that of each other entry, paired by test shape."""
    zero_shot: dict[str, ConfidenceInterval]
    """Accuracy by network; empty if the networks have no projected text query."""


class CloudFeatures(NamedTuple):
    """Features of a frozen network for each cloud of a data set."""

    pooled: Float[np.ndarray, "n e"]
    queries: dict[str, Float[Tensor, "n _"]]
    """Projected queries by modality."""


def bootstrap_interval(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"], seed: int = 0
) -> ConfidenceInterval:
    """Return the mean of the values with a 95 % percentile bootstrap interval."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:  # scipy returns NaN for equal values
        return ConfidenceInterval(*[float(values[0])] * 3)
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=seed,
        vectorized=True,
    ).confidence_interval
    return ConfidenceInterval(float(values.mean()), float(interval.low), float(interval.high))


def read_clouds(dataset: PointCloudDataset, num_points: int) -> Float[Tensor, "n count 3"]:
    """Read clouds of equal size and sample `num_points` farthest points of each."""
    clouds = torch.from_numpy(np.stack([dataset.points(i) for i in range(len(dataset))]))
    return FarthestPointSample(num_points)(clouds)


@torch.no_grad()
def encode_clouds(
    network: PretrainingNetwork, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> CloudFeatures:
    """Encode unmasked clouds with the network in evaluation mode."""
    device = next(network.parameters()).device
    pooled, queries = [], []
    with evaluation_mode(network):
        for batch in torch.split(clouds, batch_size):
            encoding = network.encode(batch.to(device))
            pooled.append(encoding.pooled().cpu())
            queries.append(network.projections(encoding.queries))
    names = queries[0]
    return CloudFeatures(
        torch.cat(pooled).numpy(),
        {name: torch.cat([q[name].cpu() for q in queries]) for name in names},
    )


@torch.no_grad()
def recalibrate_batch_norm(
    network: PretrainingNetwork, clouds: Float[Tensor, "n p 3"], *, batch_size: int = 64
) -> PretrainingNetwork:
    """Return a copy with BatchNorm statistics measured on the clouds; weights stay the same.

    The initial statistics of an untrained network, mean 0 and variance 1, do not match its
    activations. The recalibrated network is therefore the fairer baseline: a gain over it comes
    from learned weights.
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
    """Describe clouds by a histogram of pairwise distances (D2) and the bounding box size [1].

    [1] Osada et al., Shape Distributions, ACM TOG 2002.
    """
    rows = []
    for cloud in clouds.numpy():
        distances = pdist(cloud[:: max(1, len(cloud) // 512)])
        histogram, _ = np.histogram(distances, bins=bins, range=(0.0, 2.0), density=True)
        rows.append(np.concatenate([histogram, np.ptp(cloud, axis=0)]))
    return np.stack(rows)


def fit_linear_svm(
    features: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    families: Int[np.ndarray, " n"],
) -> GridSearchCV:
    """Fit a linear SVM; cross-validation within the same data chooses scaling and C.

    Shapes of one family (near-duplicates) stay in the same fold.
    """
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("svm", LinearSVC(dual=False))]),
        {"scale": [StandardScaler(), "passthrough"], "svm__C": SVM_COSTS},
        cv=StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0),
        n_jobs=1,
    )
    with warnings.catch_warnings():
        # A large C on raw features may not converge; it scores low and is not chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return search.fit(features, labels, groups=families)


def classify_zero_shot(
    queries: Float[Tensor, "n d"], class_features: Float[Tensor, "c d"]
) -> Int[np.ndarray, " n"]:
    """Return for each query the class with the largest cosine similarity."""
    similarity = F.normalize(queries, dim=-1) @ F.normalize(class_features, dim=-1).T
    return similarity.argmax(1).numpy()


def evaluate_linear_svm(
    train: Float[np.ndarray, "n e"],
    test: Float[np.ndarray, "m e"],
    shapes: tuple[Furniture, Furniture],
) -> ProbeResult:
    """Fit a linear SVM on the train split and test it once on the test split."""
    search = fit_linear_svm(train, shapes[0].labels, shapes[0].families)
    predicted = search.predict(test)
    scale = "standardized" if search.best_params_["scale"] != "passthrough" else "raw"
    hyperparameters = f"{scale}, C = {search.best_params_['svm__C']:g}"
    accuracy = bootstrap_interval(predicted == shapes[1].labels)
    return ProbeResult(accuracy, predicted, hyperparameters)


def compare_features(
    networks: dict[str, tuple[CloudFeatures, CloudFeatures]],
    clouds: tuple[Float[Tensor, "n p 3"], Float[Tensor, "m p 3"]],
    shapes: tuple[Furniture, Furniture],
    class_features: Float[Tensor, "c d"] | None,
) -> ProbeResults:
    """Compare the features of several networks and a shape descriptor by the same protocol.

    Pairs are (train, test). `class_features` are a text teacher's features of the class names; None
    skips the zero-shot accuracy.
    """
    labels = shapes[1].labels
    pooled = {name: (train.pooled, test.pooled) for name, (train, test) in networks.items()}
    pooled["descriptor"] = (shape_descriptor(clouds[0]), shape_descriptor(clouds[1]))
    rows = {name: evaluate_linear_svm(*values, shapes) for name, values in pooled.items()}
    correct = {name: (row.predicted == labels).astype(float) for name, row in rows.items()}
    pretrained = correct.pop("pretrained")
    differences = {name: bootstrap_interval(pretrained - other) for name, other in correct.items()}
    zero_shot = {}
    if class_features is not None:
        for name, (_, test) in networks.items():
            zero_shot[name] = bootstrap_interval(
                classify_zero_shot(test.queries["text"], class_features) == labels
            )
    return ProbeResults(rows, differences, zero_shot)


class Neighbors(NamedTuple):
    """The `k` rows of a gallery most similar to each query, most similar first."""

    indices: Int[np.ndarray, "n k"]
    similarity: Float[np.ndarray, "n k"]


def nearest_neighbors(
    queries: Float[np.ndarray, "n e"],
    gallery: Float[np.ndarray, "m e"],
    k: int,
    *,
    standardize: bool = True,
) -> Neighbors:
    """Find the `k` rows of a gallery (or all, if fewer) with the largest cosine to each query.

    `standardize` first centers and scales each feature by its mean and deviation in the gallery.
    """
    if standardize:
        scaler = StandardScaler().fit(gallery)
        queries, gallery = scaler.transform(queries), scaler.transform(gallery)
    q, g = (F.normalize(torch.from_numpy(x), dim=-1) for x in (queries, gallery))
    nearest = (q @ g.T).topk(min(k, len(g)), dim=1)
    return Neighbors(nearest.indices.numpy(), nearest.values.numpy())
