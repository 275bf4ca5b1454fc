"""How well a search finds shapes of the right class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.stats import hypergeom

from recon.tasks.linear_probe import Interval, interval


class Retrieval(NamedTuple):
    """What is among the first k found, as fractions."""

    recall: Interval
    """Queries with a right shape among the first k; 95 % bootstrap over the queries."""
    precision: Interval
    """Share of the first k that are of the right class."""
    chance: float
    """Recall of a search that ranks shapes at random."""


def retrieval(
    rows: Int[np.ndarray, "n k"], asked: Sequence[str], labels: Sequence[str | None]
) -> Retrieval:
    """Compare the gallery's rows found for each query with the class asked for.

    `labels` are those of the gallery. Raises ValueError for a class that the gallery lacks: no
    search could find it.
    """
    if lacking := sorted(set(asked) - set(labels)):
        raise ValueError(f"no shape of the gallery is of class {lacking[0]!r}")
    known = np.array([label or "" for label in labels])
    right = known[rows] == np.array(asked)[:, None]
    there = np.array([(known == name).sum() for name in asked])
    none = hypergeom.pmf(0, len(known), there, rows.shape[1])
    return Retrieval(interval(right.any(1)), interval(right.mean(1)), float(1 - none.mean()))
