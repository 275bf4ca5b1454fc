"""Answer renamed command-line options with their new names."""

import re
import sys
from collections.abc import Mapping, Sequence

_SHARED_OPTIONS = {
    "points": "num_points",
    "data.size": "data.num_points",
    "data.count": "data.num_surface_points{} (folders) or data.num_fps_points{} (ModelNet)",
    "data.source_up": "data.up",
    "data.fewest": "data.min_points",
    "data.workers": "data.num_workers",
    "data.source": "data.datamodule",
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
        "callbacks.interrupt": "callbacks.graceful_stop",
        "callbacks.files": "callbacks.atomic_checkpoints",
        "callbacks.rates": "callbacks.lr_monitor",
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
"""New option names by program, then by old name; a name includes the options below it.

Where there are several new names, `{}` stands for the rest of the argument.
"""


def check_renamed_options(program: str, arguments: Sequence[str]) -> None:
    """Exit with a one-line message that gives the new name if an argument has an old one."""
    renamed = {**_SHARED_OPTIONS, **RENAMED_OPTIONS.get(program, {})}
    names = sorted(map(re.escape, renamed), key=len, reverse=True)
    pattern = re.compile(rf"([+~]*)({'|'.join(names)})(?=[.=]|$)(.*)", re.DOTALL)
    for argument in arguments:
        if match := pattern.fullmatch(argument):
            sigil, old, remainder = match.groups()
            if "+" in sigil and old.startswith("callbacks."):
                continue  # it adds a callback of the user's own under that name
            new = renamed[old] if "{}" in renamed[old] else f"{renamed[old]}{{}}"
            sys.exit(f"error: {old} was renamed: write {sigil}{new.replace('{}', remainder)}")
