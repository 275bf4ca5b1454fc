"""Config groups: their names and choices, and choices in other spellings or switched off."""

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from recon.cli.config_dir import conf_dir
from recon.cli.errors import fail

OPTIONAL_GROUPS = frozenset(
    ["data", "debug", "experiment", "hparams_search", "callbacks/guard", "probe", "teacher"]
)
"""Config groups that a configuration may lack, `group=null`."""
OFF = ("null", "none", "false", "off")
"""Values that switch off a group or a callback."""
ON = ("true", "yes", "on", "1")


@cache
def list_groups() -> frozenset[str]:
    """Return the names of all config groups."""
    root = Path(conf_dir())
    folders = {path.parent for path in root.rglob("*.yaml") if "parts" not in path.parts}
    return frozenset(folder.relative_to(root).as_posix() for folder in folders - {root})


def list_choices(group: str) -> list[str]:
    """Return the names of the choices of a config group."""
    return sorted(path.stem for path in (Path(conf_dir()) / group).glob("*.yaml"))


def find_near(name: str, choices: list[str], *, cutoff: float = 0.6) -> list[str]:
    """Return up to three names that are near to a name in any case, or contain it."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(name.lower(), list(by_lower), n=3, cutoff=cutoff)
    contained = [lower for lower in by_lower if len(name) > 2 and name.lower() in lower]
    preferred = contained if contained and name.lower() not in close else close
    return [by_lower[lower] for lower in [*dict.fromkeys(preferred)][:3]]


def normalize_choice(program: str, name: str, value: str) -> str | None:
    """Return the option for a choice of a config group in Hydra's form, None for other options.

    Exits with one line if a needed group is switched off, for a path, and for an experiment of
    another program.
    """
    group = name.replace(".", "/")
    if group in list_groups() and "null" in value.split(",")[:-1] + value.split(",")[1:]:
        fail(
            f"{name}={value}: a sweep cannot switch a group off: run that one separately, "
            f"{name}=null"
        )
    if group not in list_groups() or re.search(r"[\[{,(\"']", value):
        return None
    choices = list_choices(group)
    if name != group and value not in choices:  # a value of a plain option
        return None
    if value.lower() in OFF:
        return _switch_off(group, value, choices)
    if value.lower() in ON:
        fail(f"{name}={value}: no such choice: choose among {', '.join(choices)}")
    path = Path(value)
    chosen = {choice.lower(): choice for choice in choices}.get(
        (path.stem if path.suffix == ".yaml" else value).lower().replace("-", "_"), value
    )
    if "/" in chosen or chosen.startswith("~"):
        hint = f"; a folder of data is set by data.root={value}" if group == "data" else ""
        fail(f"{name}={value}: choose among {', '.join(choices)}{hint}")
    if group == "experiment" and chosen in choices:
        _check_program(program, chosen)
    return f"{group}={chosen}"


def _switch_off(group: str, value: str, choices: list[str]) -> str:
    """Return the option that switches off a group; exit if it is needed."""
    if "none" in choices:
        return f"{group}=none"
    if group == "scheduler":
        return "task.scheduler=null"  # a constant rate, whatever the experiment sets
    if group in OPTIONAL_GROUPS:
        return f"~{group}"
    hint = "switch off one of them with callbacks.<name>=null, " if group == "callbacks" else ""
    return fail(f"{group}={value}: is needed: {hint}choose among {', '.join(choices)}")


def _check_program(program: str, experiment: str) -> None:
    """Exit with the right command if an experiment is of the other of the two programs."""
    text = (Path(conf_dir()) / "experiment" / f"{experiment}.yaml").read_text()
    match = re.search(r"python -m recon\.(train|evaluate) ", text)
    if match and program in ("train", "evaluate") and match[1] != program:
        fail(
            f"experiment={experiment}: is of recon.{match[1]}: "
            f"python -m recon.{match[1]} experiment={experiment}"
        )
