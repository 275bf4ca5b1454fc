"""What a frozen network says of the shapes of a data module, and what that is worth."""

import hashlib
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
from recon.models.classifier import Classifier, pool_classifier_features
from recon.models.recon import PretrainingNetwork
from recon.tasks.linear_probe import fit_linear_svm
from recon.teachers.base import Teacher
from recon.teachers.cached import read_cache
from recon.teachers.prompts import TemplateSource, build_prompts, load_templates


class ExtractedFeatures(NamedTuple):
    """Features of N labelled shapes."""

    pooled: Float[Tensor, "n e"]
    """For linear probes, see `Encoding.pooled`."""
    queries: dict[str, Float[Tensor, "n _"]]
    """Projected queries, by modality; empty of a classifier."""
    labels: Int[Tensor, " n"]
    """Empty where the data have no classes."""
    ids: list[str]
    families: Int[np.ndarray, " n"]
    """Near-duplicates share a number; empty where the data do not tell."""
    logits: Float[Tensor, "n c"] | None = None
    """Of a classifier."""
    skip_reasons: tuple[str, ...] = ()
    """Why samples are missing (`on_error=skip`)."""
    class_names: tuple[str, ...] = ()
    """A classifier's classes; empty where its file does not tell."""


@torch.no_grad()
def extract_features(
    network: PretrainingNetwork | Classifier,
    data: PointCloudDataModule,
    loader: DataLoader[Any],
    view: Transform,
) -> ExtractedFeatures:
    """Encode all shapes of a loader, each as `view` shows it, by a network in evaluation mode."""
    classifier = network if isinstance(network, Classifier) else None
    device = next(network.eval().parameters()).device
    pooled, labels, ids, logits = [], [torch.empty(0).long()], list[str](), []
    queries: dict[str, list[Tensor]] = {}
    skipped: dict[str, None] = {}
    for raw in loader:
        skipped |= dict.fromkeys(raw.pop("skipped", ()))
        batch = data.augment(raw, training=False)
        encoding = network.encode(view(batch["points"].to(device)))
        pooled.append(encoding.pooled().cpu())
        if isinstance(network, Classifier):
            logits.append(network.head(pool_classifier_features(encoding)).cpu())
        else:
            for name, query in network.projections(encoding.queries).items():
                queries.setdefault(name, []).append(query.cpu())
        if "label" in batch:
            labels.append(batch["label"])
        ids += batch["id"]
    dataset: Any = loader.dataset
    return ExtractedFeatures(
        torch.cat(pooled),
        {name: torch.cat(parts) for name, parts in queries.items()},
        torch.cat(labels),
        ids,
        dataset.dataset.families,
        torch.cat(logits) if classifier else None,
        tuple(skipped),
        classifier.class_names if classifier else (),
    )


class LinearProbe:
    """A linear SVM on frozen features: fitted on the train split, read once on the test split [1].

    `cost` is its C, on features as they are; None chooses C and scaling by cross-validation within
    the train split.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (C = 0.075 as released).
    """

    splits = ("train", "test")
    checkpoint_task = "pretrain"

    def __init__(self, cost: float | None = 0.075) -> None:
        self.cost = cost

    def __call__(
        self, shapes: dict[str, ExtractedFeatures], classes: Sequence[str]
    ) -> Float[Tensor, "n c"]:
        """Return the test shapes' scores."""
        train, test = shapes["train"], shapes["test"]
        features, labels = train.pooled.numpy(), train.labels.numpy()
        if self.cost is None:
            families = train.families if len(train.families) else np.arange(len(labels))
            svm: Any = fit_linear_svm(features, labels, families)
        else:
            svm = LinearSVC(C=self.cost, dual=False).fit(features, labels)
        decided = torch.from_numpy(svm.decision_function(test.pooled.numpy())).float()
        if decided.ndim == 1:  # of two classes
            decided = torch.stack([-decided, decided], 1)
        scores = torch.full((len(decided), len(classes)), -torch.inf)
        scores[:, torch.from_numpy(svm.classes_)] = decided
        return scores

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what a fingerprint needs to know."""
        return {"probe": "LinearSVC", "C": "cross-validated" if self.cost is None else self.cost}


class TrainedClassifier:
    """A trained classifier, by the logits of the asked classes; it learned them by these names."""

    splits = ("test",)
    checkpoint_task = "classify"

    def __call__(
        self, shapes: dict[str, ExtractedFeatures], classes: Sequence[str]
    ) -> Float[Tensor, "n c"]:
        """Return the test shapes' logits."""
        test = shapes["test"]
        assert test.logits is not None
        if not test.class_names and len(classes) != test.logits.shape[1]:
            raise ValueError(
                f"the file tells no names of its {test.logits.shape[1]} classes, and "
                f"{len(classes)} are asked: give all of them, in their order, as classes=[...]"
            )
        names = list(test.class_names or classes)
        if unknown := [name for name in classes if name not in names]:
            raise ValueError(f"the classifier did not learn {unknown[0]!r}, but {', '.join(names)}")
        return test.logits[:, [names.index(name) for name in classes]]

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what a fingerprint needs to know."""
        return {"probe": "trained classifier"}


class PromptedClassFeatures:
    """Features of classes: a text teacher's, summed over sentences with the class's name.

    `templates` are 60 of the paper, 64 of ULIP, a file's, or a list, see `templates_of`. Sentences
    are not normalised before they are summed, as released.
    """

    def __init__(self, teacher: Teacher, templates: TemplateSource = 60) -> None:
        self.teacher, self.templates = teacher, load_templates(templates)
        self.source = templates

    def __call__(self, classes: Sequence[str]) -> Float[Tensor, "c d"]:
        features = []
        for name in classes:
            texts = build_prompts(name.replace("_", " "), self.templates)
            features.append(self.teacher({"text": texts}).sum(0).cpu())
        return torch.stack(features)

    def fingerprint_fields(self) -> dict[str, Any]:
        known = {60: "the paper's 60", 64: "ULIP's 64"}
        named = known.get(self.source) if isinstance(self.source, int) else None
        return {"teacher": str(self.teacher), "templates": named or self.templates}


class CachedClassFeatures:
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

    def fingerprint_fields(self) -> dict[str, Any]:
        mark = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        cached = f"bare names, cached, sha256 {mark}"
        return {"templates": cached, "standardize": self.standardize}


class ZeroShotClassifier:
    """The class whose text is most like the projected queries, by cosine [1].

    `query` is `text`, `image`, or `both`: `ratio` times the text query plus the image query.

    [1] Qi et al., arXiv:2302.02318, section 4.2 (ratio 0.25 as released).
    """

    splits = ("test",)
    checkpoint_task = "pretrain"

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

    def __call__(
        self, shapes: dict[str, ExtractedFeatures], classes: Sequence[str]
    ) -> Float[Tensor, "n c"]:
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

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what a fingerprint needs to know."""
        ratio = {"ratio": self.ratio} if self.query == "both" else {}
        about: Any = getattr(self.class_features, "fingerprint_fields", dict)
        return {"probe": "zero-shot", "query": self.query, **ratio, **about()}
