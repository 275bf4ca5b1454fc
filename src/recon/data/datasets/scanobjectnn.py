"""ScanObjectNN: scans of real objects in 15 classes, 2,048 points each, y up [1].

[1] Uy et al., arXiv:1908.04616.
"""

import warnings
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
FULL, CUT = "main_split", "main_split_nobg"
VARIANTS = {
    "OBJ_BG": (FULL, "_objectdataset.h5"),
    "OBJ_ONLY": (CUT, "_objectdataset.h5"),
    "PB_T25": (FULL, "_objectdataset_augmented25_norot.h5"),
    "PB_T25_R": (FULL, "_objectdataset_augmented25rot.h5"),
    "PB_T50_R": (FULL, "_objectdataset_augmentedrot.h5"),
    "PB_T50_RS": (FULL, "_objectdataset_augmentedrot_scale75.h5"),
}
"""Folder and end of the file names of each variant, in the main split."""
PARTITIONS = ("main_split", "split1", "split2", "split3", "split4")
FOLDERS = [f"{name}{end}" for name in PARTITIONS for end in ("", "_nobg")]
SUBFOLDERS = ("", "ScanObjectNN", "h5_files", "ScanObjectNN/h5_files")
PUBLISHED_SIZES = {
    "OBJ_BG": {"train": 2_309, "test": 581},
    "OBJ_ONLY": {"train": 2_309, "test": 581},
    "PB_T50_RS": {"train": 11_416, "test": 2_882},
}
LAYOUT = ExpectedLayout(
    "ScanObjectNN",
    """\
{root}/
  main_split/{{training,test}}_objectdataset.h5                       OBJ_BG
  main_split_nobg/{{training,test}}_objectdataset.h5                  OBJ_ONLY
  main_split/{{training,test}}_objectdataset_augmented25_norot.h5     PB_T25
  main_split/{{training,test}}_objectdataset_augmented25rot.h5        PB_T25_R
  main_split/{{training,test}}_objectdataset_augmentedrot.h5          PB_T50_R
  main_split/{{training,test}}_objectdataset_augmentedrot_scale75.h5  PB_T50_RS
  main_split_nobg/...    the same files without background, data.background=false
  split1/, split1_nobg/, ... split4_nobg/    other partitions, data.partition=split1""",
    "https://hkust-vgd.github.io/scanobjectnn/",
)


class ScanObjectNN(PointCloudDataset):
    """Read one part, train or test, of a variant, a key of `VARIANTS`.

    `background=False` reads the objects without background, True those with it. None reads OBJ_ONLY
    without and all other variants with background. If the files of a perturbed variant (PB_...)
    exist without background only, None reads those, with a warning. `partition` is main_split, the
    benchmark's, or one of split1 to split4.

    Raises ValueError for an unknown or contradictory option, FileNotFoundError with the variants
    that are there or the expected tree.
    """

    classes = CLASSES
    in_memory = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        variant: str = "OBJ_BG",
        background: bool | None = None,
        partition: str = "main_split",
    ) -> None:
        check_options(variant, background, partition)
        path = _find_file(Path(root), split, variant, background, partition)
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


def check_options(variant: str, background: bool | None, partition: str) -> None:
    """Raise ValueError for options that are unknown or contradict each other."""
    if variant not in VARIANTS:
        choices = ", ".join(f"{name} (*{suffix})" for name, (_, suffix) in VARIANTS.items())
        raise ValueError(f"ScanObjectNN has no variant {variant!r}: choose {choices}")
    if partition not in PARTITIONS:
        raise ValueError(
            f"ScanObjectNN has no partition {partition!r}: choose {', '.join(PARTITIONS)}"
        )
    if background not in (None, True, False):
        raise ValueError(f"background must be true, false or null, got {background!r}")
    contradictions = {("OBJ_BG", False): "OBJ_ONLY", ("OBJ_ONLY", True): "OBJ_BG"}
    if background is not None and (other := contradictions.get((variant, background))):
        raise ValueError(
            f"variant={variant} contradicts background={str(background).lower()}: set "
            f"variant={other}, or leave background unset"
        )


def _find_file(
    root: Path, split: str, variant: str, background: bool | None, partition: str
) -> Path:
    """Return the file of a part; see `ScanObjectNN` for the choice of its folder."""
    folder, suffix = VARIANTS[variant]
    base, name = _find_base(root), f"{'training' if split == 'train' else split}{suffix}"
    has_background = folder == FULL if background is None else background
    full, cut = base / partition, base / f"{partition}_nobg"
    wanted, other = (full, cut) if has_background else (cut, full)
    if (wanted / name).is_file():
        return wanted / name
    if any(wanted.glob(f"*{suffix}")) or not (other / name).is_file():
        _require_variant(wanted / name, base)
        return LAYOUT.require(wanted / name, root)
    is_perturbed = variant.startswith("PB_")
    if background is None and is_perturbed:
        warnings.warn(
            f"{wanted}: has no {variant}: reading {other}, with objects without background "
            "(data.background=false reads it without this warning)",
            stacklevel=3,
        )
        return other / name
    hint = f"background={str(not has_background).lower()}"
    if not is_perturbed:
        hint = f"variant={'OBJ_ONLY' if has_background else 'OBJ_BG'}"
    raise FileNotFoundError(
        f"{wanted / name}: not found, but {other / name} is there: set data.{hint} to read it"
    )


def _find_base(root: Path) -> Path:
    """Return the folder that contains the partitions; `root` may be a partition itself."""
    if root.name in FOLDERS:
        return root.parent
    bases = [root / name for name in SUBFOLDERS]
    return next((base for base in bases if any((base / f).is_dir() for f in FOLDERS)), root)


def _require_variant(path: Path, base: Path) -> None:
    """Raise FileNotFoundError that lists the variants in a folder if a missing file is of none."""
    found = [
        (name, folder)
        for folder in FOLDERS
        for name, (usual_folder, suffix) in VARIANTS.items()
        if (name.startswith("PB_") or usual_folder.endswith("_nobg") == folder.endswith("_nobg"))
        and any((base / folder).glob(f"*{suffix}"))
    ]
    if found and not any(path.parent.glob(f"*{path.name.partition('_')[2]}")):
        (name, folder), partition = found[0], found[0][1].removesuffix("_nobg")
        raise FileNotFoundError(
            f"{path}: not found; {base} has {', '.join(f'{n} ({f})' for n, f in found)}: set, for "
            f"{folder}, data.variant={name}"
            + (f" data.partition={partition}" if partition != "main_split" else "")
        )


class ScanObjectNNDataModule(PointCloudDataModule):
    """Provide batches of one variant of ScanObjectNN; see `ScanObjectNN` for the options."""

    splits = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}

    def __init__(
        self,
        root: str | Path,
        *,
        variant: str = "OBJ_BG",
        background: bool | None = None,
        partition: str = "main_split",
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        super().__init__(root, test_split=test_split, **loading)
        check_options(variant, background, partition)
        self.variant, self.background, self.partition = variant, background, partition
        if partition == "main_split":
            self.published_sizes = PUBLISHED_SIZES.get(variant, {})

    def settings(self) -> dict[str, Any]:
        partition = None if self.partition == "main_split" else self.partition
        return {"variant": self.variant, "background": self.background, "partition": partition}

    def read_part(self, part: str) -> ScanObjectNN:
        return ScanObjectNN(
            self.root,
            part,
            variant=self.variant,
            background=self.background,
            partition=self.partition,
        )
