"""Answer renamed command-line options with their new names."""

import re
import sys
from collections.abc import Mapping, Sequence

_SHARED_OPTIONS = {
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
"""New option names by program, then by old name; a name includes the options below it."""


def check_renamed_options(program: str, arguments: Sequence[str]) -> None:
    """Exit with a one-line message that gives the new name if an argument has an old one."""
    renamed = {**_SHARED_OPTIONS, **RENAMED_OPTIONS.get(program, {})}
    names = sorted(map(re.escape, renamed), key=len, reverse=True)
    pattern = re.compile(rf"([+~]*)({'|'.join(names)})(?=[.=]|$)(.*)", re.DOTALL)
    for argument in arguments:
        if match := pattern.fullmatch(argument):
            sigil, old, remainder = match.groups()
            sys.exit(f"error: {old} was renamed: write {sigil}{renamed[old]}{remainder}")
