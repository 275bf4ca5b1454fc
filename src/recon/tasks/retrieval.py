"""How well a search finds shapes of the right class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.stats import hypergeom

from recon.tasks.linear_probe import ConfidenceInterval, bootstrap_interval


class RetrievalScores(NamedTuple):
    """What is among the first k found, as fractions."""

    recall: ConfidenceInterval
    """Queries with a right shape among the first k; 95 % bootstrap over the queries."""
    precision: ConfidenceInterval
    """Share of the first k that are of the right class."""
    chance_recall: float
    """Recall of a search that ranks shapes at random."""


def retrieval_scores(
    indices: Int[np.ndarray, "n k"],
    query_labels: Sequence[str],
    gallery_labels: Sequence[str | None],
) -> RetrievalScores:
    """Compare the gallery's rows found for each query with the class asked for.

    `labels` are those of the gallery. Raises ValueError for a class that the gallery lacks: no
    search could find it.
    """
    if lacking := sorted(set(query_labels) - set(gallery_labels)):
        raise ValueError(f"no shape of the gallery is of class {lacking[0]!r}")
    known = np.array([label or "" for label in gallery_labels])
    right = known[indices] == np.array(query_labels)[:, None]
    there = np.array([(known == name).sum() for name in query_labels])
    none = hypergeom.pmf(0, len(known), there, indices.shape[1])
    return RetrievalScores(
        bootstrap_interval(right.any(1)), bootstrap_interval(right.mean(1)), float(1 - none.mean())
    )
