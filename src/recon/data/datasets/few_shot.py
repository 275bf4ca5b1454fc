"""Few-shot classification: released folds of ModelNet40, or episodes drawn from any data set.

An episode has `way` classes, `shot` support shapes per class to learn from, and query shapes to
classify. Episodes follow the protocol of the folds that Point-BERT released: supports come from the
train split, queries from the test split [1].

[1] Yu et al., arXiv:2111.14819; Sharma and Kaul, NeurIPS 2020.
"""

from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, DatasetView, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.modelnet import cloud_from_table
from recon.data.io.file_checks import (
    RESTORE_HINT,
    check_cloud,
    check_file,
    check_labels,
    to_scalar,
    wrap_read_errors,
)
from recon.data.io.safe_pickle import read_pickle

LAYOUT = ExpectedLayout(
    "The few-shot data of ModelNet40",
    """\
{root}/
  5way_10shot/0.pkl ... 9.pkl    and 5way_20shot, 10way_10shot, 10way_20shot""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


def find_folds_folder(root: Path) -> Path:
    """Return the folder of the folds: `root/ModelNetFewshot` if it exists, else `root`."""
    subfolder = root / "ModelNetFewshot"
    return subfolder if subfolder.is_dir() else root


class FewShotFold(PointCloudDataset):
    """Read one part, train or test, of a released fold: clouds of 8,192 points with normals."""

    in_memory = True

    def __init__(
        self, root: str | Path, split: str = "train", *, way: int = 5, shot: int = 10, fold: int = 0
    ) -> None:
        folder = find_folds_folder(Path(root))
        paths = [folder / f"{way}way{dash}{shot}shot/{fold}.pkl" for dash in ("_", "")]
        self._source = LAYOUT.require(
            next((path for path in paths if path.exists()), paths[0]), Path(root)
        )
        content = read_pickle(check_file(self._source))
        entries = content.get(split) if isinstance(content, dict) else None
        is_valid = isinstance(entries, list) and all(
            isinstance(entry, list | tuple) and len(entry) == 3 for entry in entries
        )
        if not is_valid or not entries:
            raise ValueError(
                f"{self._source}: has no list `{split}` of (points, label, original label): "
                f"{RESTORE_HINT}"
            )
        self._clouds = [entry[0] for entry in entries]
        with wrap_read_errors(self._source, "list of labels"):
            labels = np.array([to_scalar(entry[1]) for entry in entries])
        self.labels = check_labels(labels, len(entries), way, str(self._source))
        self.classes = [f"class {number}" for number in range(way)]
        self.ids = [f"{split}-{row}" for row in range(len(entries))]

    def file_paths(self, index: int) -> list[Path]:
        return [self._source]

    def cloud(self, index: int) -> Cloud:
        source = f"{self._source} ({self.ids[index]})"
        check_cloud(self._clouds[index], source)
        return cloud_from_table(self._clouds[index], source)


def sample_episode(
    supports: PointCloudDataset,
    queries: PointCloudDataset,
    *,
    way: int,
    shot: int,
    fold: int,
    query: int = 20,
    seed: int = 0,
) -> tuple[DatasetView, DatasetView]:
    """Draw `way` classes, and `shot` supports and `query` queries of each class.

    The draw depends only on seed, way, shot and fold. Raises ValueError if too few classes have
    enough shapes.
    """
    pools = [
        {c: np.flatnonzero(np.asarray(data.labels) == c) for c in range(len(supports.classes))}
        for data in (supports, queries)
    ]
    eligible = [c for c in pools[0] if len(pools[0][c]) >= shot and len(pools[1][c]) >= query]
    if len(eligible) < way:
        raise ValueError(
            f"{way}-way {shot}-shot needs {way} classes with {shot} supports and {query} queries, "
            f"but only {len(eligible)} have enough: lower data.way, data.shot or data.query"
        )
    rng = np.random.default_rng([seed, way, shot, fold])
    chosen = rng.choice(eligible, way, replace=False).tolist()
    label_map = {old: new for new, old in enumerate(chosen)}
    names = [supports.classes[old] for old in chosen]
    views = []
    for data, pool, count in zip((supports, queries), pools, (shot, query), strict=True):
        rows = [(0, int(row)) for c in chosen for row in rng.choice(pool[c], count, replace=False)]
        views.append(DatasetView([data], rows, label_map=label_map, classes=names))
    return views[0], views[1]


class FewShotDataModule(PointCloudDataModule):
    """Provide batches of one episode: a released fold in `root`, or drawn from `datamodule`."""

    splits = {"train": ["train"], "test": ["test"]}

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        way: int = 5,
        shot: int = 10,
        fold: int = 0,
        datamodule: PointCloudDataModule | None = None,
        query: int = 20,
        episode_seed: int = 0,
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        if (root is None) == (datamodule is None):
            raise ValueError("set either data.root to released folds, or data.datamodule, not both")
        super().__init__(
            datamodule.root if datamodule else root or "", test_split=test_split, **loading
        )
        self.way, self.shot, self.fold, self.query = way, shot, fold, query
        self.datamodule, self.episode_seed = datamodule, episode_seed
        self.published_sizes = {"train": way * shot, "test": way * 20}

    def settings(self) -> dict[str, Any]:
        return {"way": self.way, "shot": self.shot, "fold": self.fold}

    def stored_parts(self) -> list[str]:
        if self.datamodule is not None:
            raise ValueError(
                "drawn episodes cannot be prepared: prepare the data set of data.datamodule"
            )
        return super().stored_parts()

    def open_part(self, part: str) -> PointCloudDataset:
        return self.read_part(part) if self.datamodule else super().open_part(part)

    def read_part(self, part: str) -> PointCloudDataset:
        if self.datamodule is None:
            return FewShotFold(self.root, part, way=self.way, shot=self.shot, fold=self.fold)
        train, test = sample_episode(
            self.datamodule.open_split("train"),
            self.datamodule.open_split("test"),
            way=self.way,
            shot=self.shot,
            fold=self.fold,
            query=self.query,
            seed=self.episode_seed,
        )
        return train if part == "train" else test
