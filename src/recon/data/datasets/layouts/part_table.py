"""Classes of shapes and their parts: those of ShapeNetPart, or a table of one's own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from recon.data.io.arrays import read_json
from recon.data.io.file_checks import COPY_AGAIN_HINT
from recon.utils.printable import check_printable

CLASS_TO_PARTS = {
    "Airplane": range(4), "Bag": range(4, 6), "Cap": range(6, 8), "Car": range(8, 12),
    "Chair": range(12, 16), "Earphone": range(16, 19), "Guitar": range(19, 22),
    "Knife": range(22, 24), "Lamp": range(24, 28), "Laptop": range(28, 30),
    "Motorbike": range(30, 36), "Mug": range(36, 38), "Pistol": range(38, 41),
    "Rocket": range(41, 44), "Skateboard": range(44, 47), "Table": range(47, 50),
}  # fmt: skip
SYNSETS = {
    "Airplane": "02691156", "Bag": "02773838", "Cap": "02954340", "Car": "02958343",
    "Chair": "03001627", "Earphone": "03261776", "Guitar": "03467517", "Knife": "03624134",
    "Lamp": "03636649", "Laptop": "03642806", "Motorbike": "03790512", "Mug": "03797390",
    "Pistol": "03948459", "Rocket": "04099429", "Skateboard": "04225987", "Table": "04379243",
}  # fmt: skip
POINT_CLASSES = tuple(f"{name} {part}" for name, parts in CLASS_TO_PARTS.items() for part in parts)
PARTS_FILE = "parts.json"
"""File beside the shapes that maps each class of one's own to its parts."""
EXAMPLE = '{"Nut": ["thread", "head"]}'
OwnParts = Mapping[str, Mapping[str, int]]
"""Maps each class to its parts, and each part to its label in the files."""


class PartTable(NamedTuple):
    """Parts of each class, and the labels of the parts in the files."""

    point_classes: tuple[str, ...]
    """Names of all parts."""
    parts: dict[str, list[int]]
    """Maps each class to its rows of `point_classes`."""
    labels: dict[str, list[int]]
    """Maps each class to the labels of its parts in the files."""
    is_own: bool

    def convert(
        self, labels: Int[np.ndarray, " n"], class_name: str, source: Path | str
    ) -> Int[np.ndarray, " n"]:
        """Return the rows of `point_classes` of labels in a file, -1 for unlabeled points.

        Raises ValueError for labels that are not parts of the class.
        """
        expected = np.array(self.labels[class_name], dtype=np.int64)
        rows = np.append(self.parts[class_name], -1)
        found = np.full(len(labels), -2)
        for label, row in zip([*expected, -1], rows, strict=True):
            found[labels == label] = row
        if wrong := Counter(labels[found == -2].tolist()):
            hint = f"correct them, or number the parts in {PARTS_FILE}, "
            hint += f'{{"{class_name}": {{"<part>": <label>, ...}}}}'
            raise ValueError(
                f"{source}: {wrong.total()} points have the parts {sorted(wrong)}, but the class "
                f"{class_name} has {expected.tolist()}: {hint if self.is_own else COPY_AGAIN_HINT}"
            )
        return found


def read_own_parts(root: Path, parts: Mapping[str, Any] | str | Path | None) -> OwnParts | None:
    """Return the parts of one's own classes from a mapping or a JSON file, by default parts.json.

    A class has a list of parts, labeled 0, 1, ... in its files, or a mapping from parts to labels.
    Returns None without a file. Raises ValueError that names the file for any other content.
    """
    source: Path | str = "data.parts"
    if isinstance(parts, str | Path) or (parts is None and (root / PARTS_FILE).is_file()):
        source = Path(parts).expanduser() if parts is not None else root / PARTS_FILE
        parts = read_json(source)
    if parts is None:
        return None
    if not isinstance(parts, Mapping) or not parts:
        raise ValueError(f"{source}: must map classes to lists of parts, such as {EXAMPLE}")
    return {str(name): _parse_parts(str(name), entry, source) for name, entry in parts.items()}


def _parse_parts(class_name: str, entry: Any, source: Path | str) -> dict[str, int]:
    if isinstance(entry, Mapping):
        labels = {str(part): label for part, label in entry.items()}
    elif isinstance(entry, Sequence) and not isinstance(entry, str):
        labels = {str(part): label for label, part in enumerate(entry)}
    else:
        labels = {}
    are_labels = all(type(label) is int and label >= 0 for label in labels.values())
    if not labels or len(labels) < len(entry) or len({*labels.values()}) < len(labels):
        are_labels = False
    if not are_labels:
        raise ValueError(
            f"{source}: the class {class_name!r} has {entry!a:.200}, expected a list of different "
            f"parts, such as {EXAMPLE}, or of parts with different labels, such as "
            '{"Nut": {"thread": 0, "head": 1}}'
        )
    check_printable([class_name, *labels], source)
    return labels


def build_part_table(
    classes: Sequence[str], own: OwnParts | None, *, local_labels: bool = False
) -> PartTable:
    """Return the parts of classes: those of `own`, else of ShapeNetPart.

    Without a class of one's own, the table has all 50 parts of ShapeNetPart, as its networks. With
    `local_labels`, files number the parts of each class of ShapeNetPart from 1. Classes without
    any parts are left out.
    """
    official = {
        name: {f"{name} {part}": row + 1 if local_labels else part for row, part in enumerate(ids)}
        for name, ids in CLASS_TO_PARTS.items()
    }
    named = {name: {f"{name}/{part}": label for part, label in entry.items()}
             for name, entry in (own or {}).items()}  # fmt: skip
    entries = {name: named.get(name) or official.get(name, {}) for name in classes}
    is_own = any(name in named or name not in official for name in classes)
    point_classes = tuple(part for entry in entries.values() for part in entry)
    if not is_own:
        point_classes = POINT_CLASSES
    rows = {part: row for row, part in enumerate(point_classes)}
    return PartTable(
        point_classes,
        {name: [rows[part] for part in entry] for name, entry in entries.items()},
        {name: [*entry.values()] for name, entry in entries.items()},
        is_own,
    )


def check_classes_have_parts(table: PartTable, present: Sequence[str], root: Path) -> None:
    """Raise ValueError for a class that has shapes but no parts."""
    if missing := [name for name in present if not table.parts[name]]:
        raise ValueError(
            f"{root}: the class {missing[0]} has no parts: list them in {root / PARTS_FILE}, "
            f'{{"{missing[0]}": ["<part>", ...]}}, or set data.parts=<file>'
        )
