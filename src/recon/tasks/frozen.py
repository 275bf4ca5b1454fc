"""What a frozen network says of the shapes of a data module, and what that is worth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from sklearn.svm import LinearSVC
from torch import Tensor
from torch.utils.data import DataLoader

from recon.data.datamodule import PointCloudDataModule
from recon.data.transforms import Transform
from recon.models.recon import PretrainingNetwork
from recon.tasks.probe import linear_svm
from recon.teachers.base import Teacher
from recon.teachers.cached import read_cache
from recon.teachers.prompts import prompts


class Frozen(NamedTuple):
    """Features of N labelled shapes."""

    pooled: Float[Tensor, "n e"]
    """For linear probes, see `Encoding.pooled`."""
    queries: dict[str, Float[Tensor, "n _"]]
    """Projected queries, by modality."""
    labels: Int[Tensor, " n"]
    ids: list[str]
    families: Int[np.ndarray, " n"]
    """Near-duplicates share a number; empty where the data do not tell."""


@torch.no_grad()
def read_features(
    network: PretrainingNetwork,
    data: PointCloudDataModule,
    loader: DataLoader[Any],
    view: Transform,
) -> Frozen:
    """Encode all shapes of a loader, each as `view` shows it, by a network in evaluation mode."""
    device = next(network.eval().parameters()).device
    pooled, labels, ids = [], [], list[str]()
    queries: dict[str, list[Tensor]] = {}
    for raw in loader:
        batch = data.augment(raw, training=False)
        encoding = network.encode(view(batch["points"].to(device)))
        pooled.append(encoding.pooled().cpu())
        for name, query in network.projections(encoding.queries).items():
            queries.setdefault(name, []).append(query.cpu())
        labels.append(batch["label"])
        ids += batch["id"]
    dataset: Any = loader.dataset
    return Frozen(
        torch.cat(pooled),
        {name: torch.cat(parts) for name, parts in queries.items()},
        torch.cat(labels),
        ids,
        dataset.dataset.families,
    )


class LinearProbe:
    """A linear SVM on frozen features: fitted on the train split, read once on the test split [1].

    `cost` is its C, on features as they are; None chooses C and scaling by cross-validation within
    the train split.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (C = 0.075 as released).
    """

    splits = ("train", "test")

    def __init__(self, cost: float | None = 0.075) -> None:
        self.cost = cost

    def __call__(self, shapes: dict[str, Frozen], classes: Sequence[str]) -> Float[Tensor, "n c"]:
        """Return the test shapes' scores."""
        train, test = shapes["train"], shapes["test"]
        features, labels = train.pooled.numpy(), train.labels.numpy()
        if self.cost is None:
            families = train.families if len(train.families) else np.arange(len(labels))
            svm: Any = linear_svm(features, labels, families)
        else:
            svm = LinearSVC(C=self.cost, dual=False).fit(features, labels)
        decided = torch.from_numpy(svm.decision_function(test.pooled.numpy())).float()
        if decided.ndim == 1:  # of two classes
            decided = torch.stack([-decided, decided], 1)
        scores = torch.full((len(decided), len(classes)), -torch.inf)
        scores[:, torch.from_numpy(svm.classes_)] = decided
        return scores

    def about(self) -> dict[str, Any]:
        """Return what a fingerprint needs to know."""
        return {"probe": "LinearSVC", "C": "cross-validated" if self.cost is None else self.cost}


class PromptedClasses:
    """Features of classes: a text teacher's, summed over sentences with the class's name.

    `templates` holds sentences with `{}` for the name; None has the 60 prompts of the paper.
    Sentences are not normalised before they are summed, as released.
    """

    def __init__(self, teacher: Teacher, templates: Sequence[str] | None = None) -> None:
        if templates is not None and not all("{}" in template for template in templates):
            raise ValueError("each template needs {} where the name of the class goes")
        self.teacher, self.templates = teacher, templates

    def __call__(self, classes: Sequence[str]) -> Float[Tensor, "c d"]:
        features = []
        for name in classes:
            spoken = name.replace("_", " ")
            texts = prompts(spoken)
            if self.templates is not None:
                texts = [template.replace("{}", spoken) for template in self.templates]
            features.append(self.teacher({"text": texts}).sum(0).cpu())
        return torch.stack(features)

    def about(self) -> dict[str, Any]:
        templates = "the paper's 60 prompts" if self.templates is None else list(self.templates)
        return {"templates": templates}


class CachedClasses:
    """Features of classes from a cache, by their bare names; centred with `standardize`."""

    def __init__(self, path: str | Path, *, standardize: bool = False) -> None:
        self.path, self.standardize = Path(path), standardize

    def __call__(self, classes: Sequence[str]) -> Float[Tensor, "c d"]:
        cache = read_cache(self.path)
        row = {name: number for number, name in enumerate(cache.names)}
        if lacking := [name for name in classes if name not in row]:
            raise ValueError(
                f"{self.path}: has no features of {len(lacking)} of {len(classes)} classes, among "
                f"them {lacking[0]!r}: cache them, or ask a live teacher"
            )
        features = cache.features[[row[name] for name in classes], 0].float()
        return (features - cache.mean) / cache.deviation if self.standardize else features

    def about(self) -> dict[str, Any]:
        return {"templates": "bare names, cached", "standardize": self.standardize}


class ZeroShot:
    """The class whose text is most like the projected queries, by cosine [1].

    `query` is `text`, `image`, or `both`: `ratio` times the text query plus the image query.

    [1] Qi et al., arXiv:2302.02318, section 4.2 (ratio 0.25 as released).
    """

    splits = ("test",)

    def __init__(
        self,
        class_features: Callable[[Sequence[str]], Tensor],
        *,
        query: str = "text",
        ratio: float = 0.25,
    ) -> None:
        if query not in ("text", "image", "both"):
            raise ValueError(f"query must be text, image or both, got {query!r}")
        self.class_features, self.query, self.ratio = class_features, query, ratio

    def __call__(self, shapes: dict[str, Frozen], classes: Sequence[str]) -> Float[Tensor, "n c"]:
        """Return the test shapes' cosines to each class."""
        queries = shapes["test"].queries
        asked = ("text", "image") if self.query == "both" else (self.query,)
        if lacking := [name for name in asked if name not in queries]:
            raise ValueError(f"the network projects no {lacking[0]} query, but {sorted(queries)}")
        features = queries[asked[0]]
        if self.query == "both":
            features = self.ratio * queries["text"] + queries["image"]
        known = self.class_features(classes)
        if known.shape[1] != features.shape[1]:
            raise ValueError(
                f"classes have features of width {known.shape[1]}, the network projects to "
                f"{features.shape[1]}: choose the teacher it learned from"
            )
        return F.normalize(features, dim=-1) @ F.normalize(known, dim=-1).T

    def about(self) -> dict[str, Any]:
        """Return what a fingerprint needs to know."""
        ratio = {"ratio": self.ratio} if self.query == "both" else {}
        about: Any = getattr(self.class_features, "about", dict)
        return {"probe": "zero-shot", "query": self.query, **ratio, **about()}
