"""Name the new option where a command line has an old one."""

import re
import sys
from collections.abc import Mapping, Sequence

_EVERY_PROGRAM = {
    "points": "num_points",
    "data.size": "data.num_points",
    "data.source_up": "data.up",
    "data.fewest": "data.min_points",
    "data.workers": "data.num_workers",
    "widths": "projection_dims",
}
RENAMED_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "train": {
        "pretrained": "checkpoint",
        "weights": "loss_weights",
        "classes": "num_classes",
        "object_classes": "num_object_classes",
        "classes_of": "label_level",
        "eval.protocol=honest": "eval.selection=val",
        "eval.protocol=paper": "eval.selection=test",
        "eval.honest": "eval.val",
        "eval.paper": "eval.test",
        "callbacks.guard.limit": "callbacks.guard.max_consecutive",
        "callbacks.guard.dump": "callbacks.guard.dump_dir",
        "callbacks.svm": "callbacks.linear_probe",
    },
    "evaluate": {"weights": "checkpoint"},
    "embed": {"count": "num_surface_points", "workers": "num_workers"},
    "prepare": {"workers": "num_workers"},
    "segment": {
        "model": "checkpoint",
        "count": "num_surface_points",
        "windows.size": "windows.num_points",
    },
    "export": {"source": "checkpoint"},
    "info": {"source": "checkpoint"},
}
"""New names by program and old name; a name stands for the options below it too."""


def check_renamed_options(program: str, arguments: Sequence[str]) -> None:
    """End the program with one line where an argument has an old name."""
    renamed = {**_EVERY_PROGRAM, **RENAMED_OPTIONS.get(program, {})}
    names = sorted(map(re.escape, renamed), key=len, reverse=True)
    pattern = re.compile(rf"([+~]*)({'|'.join(names)})(?=[.=]|$)(.*)", re.DOTALL)
    for argument in arguments:
        if found := pattern.fullmatch(argument):
            sigil, old, rest = found.groups()
            sys.exit(f"error: {old} was renamed: write {sigil}{renamed[old]}{rest}")
