"""Extract features of a frozen network and classify by linear SVM, zero-shot or its own head."""

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

from recon.data.batch import Clouds
from recon.data.datamodule import PointCloudDataModule
from recon.data.seeded_transforms import RandomStream, seed_generators, transform_each
from recon.data.transforms import Transform
from recon.models.classifier import Classifier, pool_classifier_features
from recon.models.recon import PretrainingNetwork
from recon.tasks.linear_probe import fit_linear_svm
from recon.tasks.training_mode import evaluation_mode
from recon.teachers.base import Teacher
from recon.teachers.cached import read_cache
from recon.teachers.prompts import TemplateSource, build_prompts, load_templates
from recon.utils.progress import Tracked


class ExtractedFeatures(NamedTuple):
    """Features of N shapes."""

    pooled: Float[Tensor, "n e"]
    """Pooled features for linear probes, see `Encoding.pooled`."""
    queries: dict[str, Float[Tensor, "n _"]]
    """Projected queries by modality; empty for a classifier."""
    labels: Int[Tensor, " n"]
    """Empty if the data have no classes."""
    ids: list[str]
    families: Int[np.ndarray, " n"]
    """Family number of each shape: near-duplicates share one; empty if the data define none."""
    logits: Float[Tensor, "n c"] | None = None
    """Logits of a classifier."""
    skip_reasons: tuple[str, ...] = ()
    """Reasons of the samples that were skipped (`on_error=skip`)."""
    class_names: tuple[str, ...] = ()
    """Class names of a classifier; empty if its checkpoint does not store them."""


@torch.no_grad()
def extract_features(
    network: PretrainingNetwork | Classifier,
    data: PointCloudDataModule,
    loader: DataLoader[Any] | Tracked,
    view: Transform,
    *,
    is_test: bool = True,
) -> ExtractedFeatures:
    """Encode all shapes of a loader after the transform `view`, in evaluation mode.

    The test transform of the data acts before it, unless `is_test` is False, for the shapes that a
    probe is fitted to.
    """
    classifier = network if isinstance(network, Classifier) else None
    device = next(network.parameters()).device
    pooled, labels, ids, logits = [], [torch.empty(0).long()], list[str](), []
    queries: dict[str, list[Tensor]] = {}
    skip_reasons: dict[str, None] = {}
    with evaluation_mode(network):
        for loaded in loader:
            skip_reasons |= dict.fromkeys(loaded.pop("skipped", ()))
            batch = data.augment(loaded, training=False) if is_test else data.align(loaded)
            clouds = Clouds(batch["points"].to(device))
            generators = seed_generators(batch["seed"], device, RandomStream.VIEW)
            encoding = network.encode(transform_each(view, clouds, generators).points)
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
        tuple(skip_reasons),
        classifier.class_names if classifier else (),
    )


class LinearProbe:
    """Linear SVM on frozen features, fitted on the train split, tested on the test split [1].

    `cost` is C of the SVM, on features without scaling; None chooses C and scaling by
    cross-validation within the train split.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (C = 0.075 as released).
    """

    splits = ("train", "test")
    checkpoint_task = "pretrain"

    def __init__(self, cost: float | None = 0.075) -> None:
        self.cost = cost

    def __call__(
        self, shapes: dict[str, ExtractedFeatures], classes: Sequence[str]
    ) -> Float[Tensor, "n c"]:
        """Return the SVM scores of the test shapes; classes without a training shape have -inf."""
        train, test = shapes["train"], shapes["test"]
        features, labels = train.pooled.numpy(), train.labels.numpy()
        if self.cost is None:
            families = train.families if len(train.families) else np.arange(len(labels))
            svm: Any = fit_linear_svm(features, labels, families)
        else:
            svm = LinearSVC(C=self.cost, dual=False).fit(features, labels)
        decision = torch.from_numpy(svm.decision_function(test.pooled.numpy())).float()
        if decision.ndim == 1:  # scikit-learn returns one column for two classes
            decision = torch.stack([-decision, decision], 1)
        scores = torch.full((len(decision), len(classes)), -torch.inf)
        scores[:, torch.from_numpy(svm.classes_)] = decision
        return scores

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the settings that are part of an evaluation's fingerprint."""
        return {"probe": "LinearSVC", "C": "cross-validated" if self.cost is None else self.cost}


class TrainedClassifier:
    """Logits of a trained classifier for the chosen classes, matched by name."""

    splits = ("test",)
    checkpoint_task = "classify"

    def __call__(
        self, shapes: dict[str, ExtractedFeatures], classes: Sequence[str]
    ) -> Float[Tensor, "n c"]:
        """Return the logits of the test shapes; raise ValueError for unknown classes."""
        test = shapes["test"]
        assert test.logits is not None
        if not test.class_names and len(classes) != test.logits.shape[1]:
            raise ValueError(
                f"the checkpoint does not name its {test.logits.shape[1]} classes, and "
                f"{len(classes)} were passed: name all of its classes in order, classes=[...]"
            )
        names = list(test.class_names or classes)
        if unknown := [name for name in classes if name not in names]:
            raise ValueError(
                f"the classifier did not learn {unknown[0]!r}; its classes are {', '.join(names)}"
            )
        return test.logits[:, [names.index(name) for name in classes]]

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the settings that are part of an evaluation's fingerprint."""
        return {"probe": "trained classifier"}


class PromptedClassFeatures:
    """Text features of classes: a teacher's features, summed over prompts with the class name.

    `templates` is 60 (the paper's), 64 (ULIP's), a file or a list, see `load_templates`. Features
    are not normalized before they are summed, as released.
    """

    def __init__(self, teacher: Teacher, templates: TemplateSource = 60) -> None:
        self.teacher, self.templates = teacher.eval(), load_templates(templates)
        self.source = templates

    def __call__(self, classes: Sequence[str]) -> Float[Tensor, "c d"]:
        features = []
        for name in classes:
            texts = build_prompts(name.replace("_", " "), self.templates)
            features.append(self.teacher({"text": texts}).sum(0).cpu())
        return torch.stack(features)

    def fingerprint_fields(self) -> dict[str, Any]:
        names = {60: "the paper's 60", 64: "ULIP's 64"}
        name = names.get(self.source) if isinstance(self.source, int) else None
        return {"teacher": str(self.teacher), "templates": name or self.templates}


class CachedClassFeatures:
    """Text features of bare class names from a cache; `standardize` centers and scales them."""

    def __init__(self, path: str | Path, *, standardize: bool = False) -> None:
        self.path, self.standardize = Path(path), standardize

    def __call__(self, classes: Sequence[str]) -> Float[Tensor, "c d"]:
        cache = read_cache(self.path)
        row = {name: number for number, name in enumerate(cache.names)}
        if missing := [name for name in classes if name not in row]:
            raise ValueError(
                f"{self.path}: lacks the features of {len(missing)} of {len(classes)} classes, for "
                f"example {missing[0]!r}: cache them, or use a live teacher"
            )
        features = cache.features[[row[name] for name in classes], 0].float()
        return (features - cache.mean) / cache.deviation if self.standardize else features

    def fingerprint_fields(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        templates = f"bare names, cached, sha256 {digest}"
        return {"templates": templates, "standardize": self.standardize}


class ZeroShotClassifier:
    """Zero-shot classification by the cosine of projected queries and class features [1].

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
        """Return the cosine of each test shape and each class."""
        queries = shapes["test"].queries
        names = ("text", "image") if self.query == "both" else (self.query,)
        if missing := [name for name in names if name not in queries]:
            raise ValueError(
                f"the network has no projected {missing[0]} query, only {sorted(queries)}: "
                "choose one of these by task.query, or another checkpoint"
            )
        features = queries[names[0]]
        if self.query == "both":
            features = self.ratio * queries["text"] + queries["image"]
        class_features = self.class_features(classes)
        if class_features.shape[1] != features.shape[1]:
            raise ValueError(
                f"class features have width {class_features.shape[1]}, projected queries have "
                f"width {features.shape[1]}: use the teacher that the network was trained with"
            )
        return F.normalize(features, dim=-1) @ F.normalize(class_features, dim=-1).T

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the settings that are part of an evaluation's fingerprint."""
        ratio = {"ratio": self.ratio} if self.query == "both" else {}
        class_fields: Any = getattr(self.class_features, "fingerprint_fields", dict)
        return {"probe": "zero-shot", "query": self.query, **ratio, **class_fields()}
