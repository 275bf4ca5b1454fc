"""Classes of the points of rooms: those of S3DIS, or a list of one's own."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from recon.data.datasets.layouts.room_layout import RoomLayout
from recon.data.io.arrays import read_lines

CLASS_ORDERS = {
    "pointnet": (
        "ceiling", "floor", "wall", "beam", "column", "window", "door",
        "table", "chair", "sofa", "bookcase", "board", "clutter",
    ),
    "kpconv": (
        "ceiling", "floor", "wall", "beam", "column", "window", "door",
        "chair", "table", "bookcase", "sofa", "board", "clutter",
    ),
}  # fmt: skip
FILE_ORDER = CLASS_ORDERS["pointnet"]
"""Order of the labels in the array layouts of S3DIS."""
OTHER_NAMES = ("stairs", "staris")
"""Names in the published files that are clutter, as in PointNet's conversion."""
CLASSES_FILE = "classes.txt"
"""File beside the areas with one class name a line."""


class RoomClasses(NamedTuple):
    """Names of the point classes, and the class of each label in the files."""

    names: tuple[str, ...]
    table: Int[np.ndarray, " labels"]
    """Class of each label in the files, -1 for ignored ones."""
    is_own: bool
    """Whether the classes are listed by the user, not S3DIS's."""
    warnings: list[str]

    def convert(self, labels: Int[np.ndarray, " n"], source: Path | str) -> Int[np.ndarray, " n"]:
        """Return the classes of labels in the files; raise ValueError for labels out of range."""
        count = len(self.table)
        if len(wrong := labels[(labels < -1) | (labels >= count)]):
            hint = "lists more classes" if self.is_own else "lists those of your files, in order"
            raise ValueError(
                f"{source}: label {wrong[0]} is none of the {count} classes 0 to {count - 1} "
                f"({', '.join(self.names)}): correct it, or set data.classes=[...] that {hint}"
            )
        return np.append(self.table, -1)[labels]  # label -1 takes the last entry


def resolve_classes(
    layout: RoomLayout,
    *,
    order: str = "pointnet",
    classes: Sequence[str] | None = None,
    ignored: Collection[str] = (),
) -> RoomClasses:
    """Return the classes of rooms: `classes`, else those of classes.txt, else S3DIS's.

    Points of `ignored` classes are unlabeled. If files name S3DIS's classes and a few others, the
    others become clutter; otherwise the classes are the names in the files. Both give a warning.
    Raises ValueError for names in files that a given list lacks.
    """
    own = list(map(str, classes)) if classes is not None else _read_classes_file(layout.root)
    if own is None:
        names = CLASS_ORDERS[order]
        if layout.label_names is None:
            table = [names.index(name) for name in FILE_ORDER]
            return _build(names, FILE_ORDER, table, ignored, False, [])
        return _match_s3dis_names(layout, names, ignored)
    if len({*own}) < len(own) or not own:
        raise ValueError(f"data.classes={own}: must list different names of classes")
    if layout.label_names is None:
        return _build(own, own, list(range(len(own))), ignored, True, [])
    return _match_own_names(layout, own, ignored)


def _read_classes_file(root: Path) -> list[str] | None:
    path = root / CLASSES_FILE
    return read_lines(path) if path.is_file() else None


def _build(
    names: Sequence[str],
    label_names: Sequence[str],
    table: Sequence[int],
    ignored: Collection[str],
    is_own: bool,
    warnings: list[str],
) -> RoomClasses:
    if unknown := sorted({*ignored} - {*label_names} - {*names}):
        raise ValueError(
            f"data.ignored_classes={unknown}: none of the classes {', '.join(label_names)}"
        )
    pairs = zip(label_names, table, strict=True)
    rows = [-1 if name in ignored else row for name, row in pairs]
    return RoomClasses(tuple(names), np.array(rows, dtype=np.int64), is_own, warnings)


def _match_own_names(layout: RoomLayout, own: list[str], ignored: Collection[str]) -> RoomClasses:
    counts = layout.class_counts()
    if unlisted := [name for name in counts if name not in own and name not in ignored]:
        described = _describe_counts(counts, unlisted)
        hint = ""
        if close := get_close_matches(unlisted[0], [n for n in own if n not in counts], 1, 0.5):
            hint = f"correct {close[0]} to {unlisted[0]}, "
        raise ValueError(
            f"{layout.root}: has objects of {described}, which are not among the classes "
            f"{', '.join(own)}: {hint}add them, data.classes={format_list([*own, *unlisted])}, or "
            f"leave out their points, data.ignored_classes={format_list(unlisted)}"
        )
    warnings = [f"no object is of class {name!r}, the files have {', '.join(sorted(counts))}"
                for name in own if name not in counts]  # fmt: skip
    table = [own.index(name) if name in own else -1 for name in layout.label_names or ()]
    return _build(own, layout.label_names or (), table, ignored, True, warnings)


def _match_s3dis_names(
    layout: RoomLayout, names: Sequence[str], ignored: Collection[str]
) -> RoomClasses:
    counts = layout.class_counts()
    known = [name for name in names if name in counts]
    foreign = sorted(name for name in counts if name not in {*names, *OTHER_NAMES, *ignored})
    objects = sum(counts[name] for name in foreign)
    if foreign and (2 * len(foreign) >= len(known) or 4 * objects >= sum(counts.values())):
        found = [*known, *(name for name in sorted(counts) if name not in {*known, *ignored})]
        message = (
            f"objects of {_describe_counts(counts, foreign)} are not of S3DIS's classes: the "
            f"classes are those of the files, data.classes={format_list(found)} fixes their order"
        )
        table = [found.index(name) if name in found else -1 for name in layout.label_names or ()]
        return _build(found, layout.label_names or (), table, ignored, True, [message])
    warnings = [
        f"{counts[name]} objects of class {name!r} are labeled clutter: data.classes=[...] or "
        f"data.ignored_classes={format_list([name])} changes this"
        for name in counts
        if name not in names and name not in ignored
    ]
    clutter = names.index("clutter")
    label_names = layout.label_names or ()
    table = [names.index(name) if name in names else clutter for name in label_names]
    return _build(names, label_names, table, ignored, False, warnings)


def _describe_counts(counts: Mapping[str, int], names: Sequence[str]) -> str:
    shown = [f"{name!r} ({counts[name]})" for name in names[:10]]
    return ", ".join([*shown, *([f"{len(names) - 10} more"] if len(names) > 10 else [])])


def format_list(names: Iterable[str]) -> str:
    """Format names as a list of the command line, with quotes where they are needed."""
    plain = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][\w.-]*", re.IGNORECASE)
    return f"[{','.join(n if plain.fullmatch(n) else repr(n) for n in names)}]"
