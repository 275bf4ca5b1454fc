"""ShapeNet-55: 52,470 clouds of 8,192 points, each with a rendering and a category [1].

[1] Chang et al., arXiv:1512.03012; split of Yu et al., arXiv:2111.14819 (Point-BERT).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.arrays import read_json, read_lines, read_npy
from recon.data.io.file_checks import (
    RESTORE_HINT,
    check_cloud,
    check_file,
    resolve_inside,
    wrap_read_errors,
)
from recon.data.io.image_checks import decode_image
from recon.teachers.prompts import build_prompts
from recon.utils.printable import check_printable

SPLITS = {"train": ["train"], "test": ["test"], "all": ["test", "train"]}
SUBSETS = {
    "ShapeNet-55": SPLITS,
    "ShapeNet-34": SPLITS,
    "ShapeNet-Unseen21": {"test": ["test"], "all": ["test"]},
}
"""Folders of lists, each with its splits."""
PUBLISHED_SIZES = {
    "ShapeNet-55": {"train": 41_952, "test": 10_518},
    "ShapeNet-34": {"train": 46_765, "test": 3_400},
    "ShapeNet-Unseen21": {"test": 2_305},
}
SYNSETS = {
    "02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket",
    "02808440": "bathtub", "02818832": "bed", "02828884": "bench", "02843684": "birdhouse",
    "02871439": "bookshelf", "02876657": "bottle", "02880940": "bowl", "02924116": "bus",
    "02933112": "cabinet", "02942699": "camera", "02946921": "can", "02954340": "cap",
    "02958343": "car", "02992529": "cellphone", "03001627": "chair", "03046257": "clock",
    "03085013": "keyboard", "03207941": "dishwasher", "03211117": "display",
    "03261776": "earphone", "03325088": "faucet", "03337140": "file cabinet",
    "03467517": "guitar", "03513137": "helmet", "03593526": "jar", "03624134": "knife",
    "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker", "03710193": "mailbox",
    "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike",
    "03797390": "mug", "03928116": "piano", "03938244": "pillow", "03948459": "pistol",
    "03991062": "flowerpot", "04004475": "printer", "04074963": "remote control",
    "04090263": "rifle", "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa",
    "04330267": "stove", "04379243": "table", "04401088": "telephone", "04460130": "tower",
    "04468005": "train", "04530566": "watercraft", "04554684": "washer",
}  # fmt: skip
"""WordNet synsets and names of the 55 categories, for copies without shapenet55.json."""
TABLE_NAME = "shapenet55.json"
LAYOUT = ExpectedLayout(
    "ShapeNet-55",
    """\
{root}/
  ShapeNet-55/train.txt, ShapeNet-55/test.txt   lines <synset>-<id>.npy
  ShapeNet-34/..., ShapeNet-Unseen21/test.txt   other lists, data.subset=ShapeNet-34
  shapenet55.json                               columns catalogue, describe; for text only
  shapenet_pc/<synset>-<id>.npy                 (8192, 3) points
  shapenet_img/<synset>-<id>.png                renderings, for live image teachers only""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


def _read_categories(path: Path) -> dict[str, tuple[int, str]]:
    """Read a table, stored by columns or rows, as a mapping of synset to (row, category name)."""
    table = read_json(path)
    with wrap_read_errors(path, "table with the columns catalogue and describe"):
        rows = table
        if isinstance(table, dict):
            rows = [
                {"catalogue": table["catalogue"][key], "describe": table["describe"][key]}
                for key in table["catalogue"]
            ]
        # The table stores the synset as a number, without its leading zero.
        if any(not isinstance(row["describe"], str) for row in rows):
            raise ValueError("it has a category without a name")
        categories = {
            f"{int(row['catalogue']):08d}": (index, row["describe"])
            for index, row in enumerate(rows)
        }
        if len(categories) < len(rows):
            raise ValueError("it has two rows for one category")
        return categories


class ShapeNet(PointCloudDataset):
    """Read ShapeNet-55; `split` is train, test, or all (test followed by train).

    `subset` is the folder of the lists, a key of `SUBSETS`. Without shapenet55.json, classes are
    the 55 synsets in ascending order, and shapes have no texts.

    Raises FileNotFoundError with the expected directory tree for a missing file, and ValueError
    with the name of a corrupt file.
    """

    def __init__(
        self, root: str | Path, split: str = "all", *, subset: str = "ShapeNet-55"
    ) -> None:
        splits = _get_splits(subset)
        if split not in splits:
            raise ValueError(f"{subset} has no split {split!r}: choose {_join_or([*splits])}")
        self.root = _find_root(Path(root), subset)
        table = self.root / TABLE_NAME
        self._has_names = table.is_file()
        self.categories = (
            _read_categories(table)
            if self._has_names
            else {synset: (row, name) for row, (synset, name) in enumerate(SYNSETS.items())}
        )
        self.classes = [name for _, name in self.categories.values()]
        check_printable(self.classes, table)
        ids: list[str] = []
        for path in (self.root / subset / f"{part}.txt" for part in splits[split]):
            ids += self._read_list(path, table)
        self.ids = ids
        self.labels = np.array([self.category(index) for index in range(len(self.ids))], np.int64)

    def _read_list(self, path: Path, table: Path) -> list[str]:
        """Return the shapes of a list; raise ValueError for categories that are unknown."""
        ids = []
        for line in read_lines(LAYOUT.require(path, self.root)):
            resolve_inside(self.root / "shapenet_pc", line, path)
            ids.append(line.removesuffix(".npy"))
        if unknown := sorted({i.split("-")[0] for i in ids} - self.categories.keys()):
            raise ValueError(
                f"{table}: has no category for {unknown}: {RESTORE_HINT}"
                if self._has_names
                else f"{path}: {unknown} are none of the 55 synsets of ShapeNet-55: correct these "
                f"entries, or list the synsets in {table}"
            )
        return ids

    def cloud(self, index: int) -> Cloud:
        path = LAYOUT.require(self.root / "shapenet_pc" / f"{self.ids[index]}.npy", self.root)
        return Cloud(check_cloud(read_npy(path), str(path)))

    def file_paths(self, index: int) -> Sequence[Path]:
        name = self.ids[index]
        folders = (("shapenet_pc", "npy"), ("shapenet_img", "png"))
        return [self.root / folder / f"{name}.{suffix}" for folder, suffix in folders]

    def image_bytes(self, index: int) -> bytes | None:
        if not (folder := self.root / "shapenet_img").is_dir():
            return None
        return check_file(LAYOUT.require(folder / f"{self.ids[index]}.png", self.root)).read_bytes()

    def image(self, index: int) -> Image.Image:
        path = LAYOUT.require(self.root / "shapenet_img" / f"{self.ids[index]}.png", self.root)
        return decode_image(check_file(path).read_bytes(), path)

    def file_warnings(self) -> list[str]:
        clouds = {path.stem for path in (self.root / "shapenet_pc").glob("*.npy")}
        images = sorted((self.root / "shapenet_img").glob("*.png"))
        return [f"{path}: an image without a cloud" for path in images if path.stem not in clouds]

    def texts(self, index: int) -> Sequence[str]:
        if not self._has_names:
            raise ValueError(
                f"{self.root / TABLE_NAME}: not found: sentences are made of its column describe: "
                "copy it there, or train without text (student=generative)"
            )
        return build_prompts(self.classes[self.category(index)])

    def category(self, index: int) -> int:
        return self.categories[self.ids[index].split("-")[0]][0]


def _get_splits(subset: str) -> Mapping[str, Sequence[str]]:
    if subset not in SUBSETS:
        raise ValueError(f"ShapeNet has no subset {subset!r}: choose {_join_or([*SUBSETS])}")
    return SUBSETS[subset]


def _join_or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _find_root(root: Path, subset: str) -> Path:
    """Return the folder of the lists; raise FileNotFoundError if it has those of other subsets."""
    folders = (root, root / "ShapeNet55-34")
    for name in (subset, TABLE_NAME):
        for folder in folders:
            if (folder / name).exists():
                return folder
    found = [name for folder in folders for name in SUBSETS if (folder / name).is_dir()]
    if found:
        raise FileNotFoundError(
            f"{root / subset}: not found, but {', '.join(found)}: set data.subset={found[0]}"
        )
    return root


class ShapeNetDataModule(PointCloudDataModule):
    """Provide batches of ShapeNet-55 for pretraining, by default train and test as in the paper.

    `subset` reads the lists of ShapeNet-34 or ShapeNet-Unseen21 instead, which divide the same
    clouds.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "all",
        subset: str = "ShapeNet-55",
        **loading: Any,
    ) -> None:
        self.splits = _get_splits(subset)
        super().__init__(root, split=split, **loading)
        self.subset, self.published_sizes = subset, PUBLISHED_SIZES[subset]

    def settings(self) -> dict[str, Any]:
        return {"subset": None if self.subset == "ShapeNet-55" else self.subset}

    def read_part(self, part: str) -> ShapeNet:
        return ShapeNet(self.root, part, subset=self.subset)
