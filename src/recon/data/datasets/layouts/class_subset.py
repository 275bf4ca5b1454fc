"""Select some classes of a data set of shapes with parts."""

import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np

from recon.data.dataset import Cloud, DatasetView, PointCloudDataset


def to_names(names: Sequence[str] | str) -> list[str]:
    """Return names as a list; a single name may be given without one."""
    return [names] if isinstance(names, str) else [str(name) for name in names]


def warn_once(messages: Iterable[str], given: set[str]) -> None:
    """Warn of messages that are not in `given`, and add them."""
    for message in messages:
        if message not in given:
            given.add(message)
            warnings.warn(message, stacklevel=3)


class ClassSubset(DatasetView):
    """The shapes of some classes, in the order of `classes`, with the parts of these classes only.

    Raises ValueError for a class that the data set does not have, or that is listed twice.
    """

    def __init__(self, dataset: PointCloudDataset, classes: Sequence[str]) -> None:
        for name in classes:
            if name not in dataset.classes:
                close = get_close_matches(name, dataset.classes, 1)
                hint = f"did you mean {close[0]}?" if close else "choose among these"
                raise ValueError(
                    f"data.classes: {name!r} is not one of the classes "
                    f"{', '.join(dataset.classes)}: {hint}"
                )
        if len({*classes}) < len(classes) or not classes:
            raise ValueError(f"data.classes={list(classes)}: must list different names of classes")
        label_map = {dataset.classes.index(name): row for row, name in enumerate(classes)}
        rows = np.flatnonzero(np.isin(dataset.labels, [*label_map]))
        super().__init__(
            [dataset], [(0, int(row)) for row in rows], label_map=label_map, classes=list(classes)
        )
        kept = [part for name in classes for part in dataset.parts[name]]
        self.point_classes = [dataset.point_classes[part] for part in kept]
        self.parts = {name: [kept.index(part) for part in dataset.parts[name]] for name in classes}
        self._new_labels = np.full(len(dataset.point_classes) + 1, -1)  # the last is of label -1
        self._new_labels[kept] = np.arange(len(kept))

    def _relabel(self, cloud: Cloud) -> Cloud:
        if cloud.point_labels is None:
            return cloud
        return cloud._replace(point_labels=self._new_labels[cloud.point_labels])

    def cloud(self, index: int) -> Cloud:
        return self._relabel(super().cloud(index))

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        return self._relabel(super().sample_cloud(index, seed))
