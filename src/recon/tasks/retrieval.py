"""Score retrieval by class: recall and precision of the first k results."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.stats import hypergeom

from recon.tasks.linear_probe import ConfidenceInterval, bootstrap_interval


class RetrievalScores(NamedTuple):
    """Scores of the first k results, as fractions."""

    recall: ConfidenceInterval
    """Share of queries with a shape of the query's class among the first k results."""
    precision: ConfidenceInterval
    """Share of the first k results that have the query's class."""
    chance_recall: float
    """Expected recall of a random ranking."""


def retrieval_scores(
    indices: Int[np.ndarray, "n k"],
    query_labels: Sequence[str],
    gallery_labels: Sequence[str | None],
) -> RetrievalScores:
    """Compare the class of each query with the classes of its results, rows of the gallery.

    The 95 % intervals are bootstrapped over queries. Raises ValueError for a class without a
    shape in the gallery: its recall would always be 0.
    """
    if missing := sorted(set(query_labels) - set(gallery_labels)):
        raise ValueError(f"no shape of the gallery has class {missing[0]!r}")
    labels = np.array([label or "" for label in gallery_labels])
    correct = labels[indices] == np.array(query_labels)[:, None]
    class_sizes = np.array([(labels == name).sum() for name in query_labels])
    no_hit = hypergeom.pmf(0, len(labels), class_sizes, indices.shape[1])
    return RetrievalScores(
        bootstrap_interval(correct.any(1)),
        bootstrap_interval(correct.mean(1)),
        float(1 - no_hit.mean()),
    )
