"""ScanObjectNN: scans of real objects in 15 classes, 2,048 points each, y up [1].

[1] Uy et al., arXiv:1908.04616.
"""

from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.file_checks import check_cloud, check_labels
from recon.data.io.hdf5 import read_hdf5
from recon.teachers.prompts import build_prompts

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door",
    "shelf", "table", "bed", "pillow", "sink", "sofa", "toilet",
)  # fmt: skip
HARDEST_SUFFIX = "_objectdataset_augmentedrot_scale75.h5"
VARIANTS = {
    "OBJ_BG": ("main_split", "_objectdataset.h5"),
    "OBJ_ONLY": ("main_split_nobg", "_objectdataset.h5"),
    "PB_T50_RS": ("main_split", HARDEST_SUFFIX),
}
LAYOUT = ExpectedLayout(
    "ScanObjectNN",
    """\
{root}/
  main_split/training_objectdataset.h5, main_split/test_objectdataset.h5             OBJ_BG
  main_split_nobg/training_objectdataset.h5, main_split_nobg/test_objectdataset.h5   OBJ_ONLY
  main_split/training_objectdataset_augmentedrot_scale75.h5, main_split/test_...     PB_T50_RS""",
    "https://hkust-vgd.github.io/scanobjectnn/",
)


class ScanObjectNN(PointCloudDataset):
    """Read one part, train or test, of a variant: OBJ_BG, OBJ_ONLY or PB_T50_RS (hardest)."""

    classes = CLASSES
    in_memory = True

    def __init__(self, root: str | Path, split: str = "train", *, variant: str = "OBJ_BG") -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"ScanObjectNN has no variant {variant!r}: choose {', '.join(VARIANTS)}"
            )
        folder, suffix = VARIANTS[variant]
        name = f"{folder}/{'training' if split == 'train' else split}{suffix}"
        path = LAYOUT.find_root(Path(root), name, ["ScanObjectNN", "h5_files"]) / name
        content = read_hdf5(path, ("data", "label"))
        self._points, labels = content["data"], content["label"]
        if self._points.ndim != 3 or self._points.shape[2] < 3 or not len(self._points):
            raise ValueError(
                f"{path}: `data` has shape {self._points.shape}, expected (n, 2048, 3)"
            )
        self._source = path
        self.labels = check_labels(labels, len(self._points), len(CLASSES), str(path))
        self.ids = [f"{split}-{row}" for row in range(len(self._points))]

    def file_paths(self, index: int) -> list[Path]:
        return [self._source]

    def cloud(self, index: int) -> Cloud:
        points: np.ndarray = self._points[index]
        return Cloud(check_cloud(points, f"{self._source} (row {index})"))

    def texts(self, index: int) -> list[str]:
        return build_prompts(CLASSES[self.labels[index]])

    def category(self, index: int) -> int:
        return int(self.labels[index])


class ScanObjectNNDataModule(PointCloudDataModule):
    """Provide batches of one variant of ScanObjectNN."""

    splits = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}

    def __init__(
        self,
        root: str | Path,
        *,
        variant: str = "OBJ_BG",
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        super().__init__(root, test_split=test_split, **loading)
        self.variant = variant
        is_hardest = variant == "PB_T50_RS"
        self.published_sizes = (
            {"train": 11_416, "test": 2_882} if is_hardest else {"train": 2_309, "test": 581}
        )

    def settings(self) -> dict[str, Any]:
        return {"variant": self.variant}

    def read_part(self, part: str) -> ScanObjectNN:
        return ScanObjectNN(self.root, part, variant=self.variant)
