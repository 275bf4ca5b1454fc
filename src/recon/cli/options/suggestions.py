"""Answer options that Hydra does not accept: correct them, or name the ones that were meant."""

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from omegaconf import DictConfig

from recon.cli.errors import fail
from recon.cli.options.config_groups import find_near
from recon.cli.options.option_search import (
    compose_accepted,
    list_arguments,
    list_program_groups,
    list_siblings,
    select_node,
    suggest_options,
)

CONFIGURED_PROGRAMS = ("train", "evaluate", "cache_teachers")
"""Programs whose configuration is stored, with the options that a user adds."""
FREE_NODES = ("loss_weights", "projection_dims")
"""Nodes with values by names that a user chooses; the task checks the names."""
EXTRAS = {"optuna": "sweeps", "submitit_slurm": "slurm", "submitit_local": "slurm"}
"""Extras of this package that provide Hydra's plugins."""


def format_suggestion(name: str, choices: Iterable[str], template: str = "{}") -> str:
    """Return "did you mean ...?" with the choices nearest to a name, "" if none is near."""
    near = find_near(name, list(choices))
    return f"did you mean {' or '.join(template.format(word) for word in near)}?" if near else ""


def correct_options(
    program: str, arguments: Sequence[str], error: BaseException, added: Collection[str]
) -> list[str]:
    """Return the options with one corrected; exit with one line if no correction is certain.

    `added` has the names of the options that the user wrote with a `+`.
    """
    from hydra.errors import MissingConfigException

    text = str(error)
    if match := re.search(r"Could not override '(.*?)'\.\n?To append to your config", text):
        return _correct_key(program, arguments, match[1], match[1] in added)
    if match := re.search(r"Could not delete from config\. '(.*?)' does not exist", text):
        return _refuse(program, arguments, match[1], f"~{match[1]}", "is not in this configuration")
    if match := re.search(r"Could not delete '(.*?)'\. No match in the defaults list", text):
        # A group that is off already.
        return [word for word in arguments if word.split("=")[0] != f"~{match[1]}"]
    if match := re.search(r"Could not override '(.*?)'\.", text):
        word = _find(arguments, match[1])
        if match[1] in added:
            return [f"+{other}" if other == word else other for other in arguments]
        return _refuse(program, arguments, match[1], word, "no such config group")
    if isinstance(error, MissingConfigException):
        return _refuse_choice(error, text)
    return fail(" ".join((text or str(error.__cause__)).split("\n")[:2]).strip())


def find_option(program: str, name: str, value: str) -> str | None:
    """Return the option `name=value` that a name stands for, None if it is unknown."""
    cfg = compose_accepted(program, [])
    if select_node(cfg, name) is not None or name in list_siblings(
        cfg, name.rpartition(".")[0], list_program_groups(cfg)
    ):
        return f"{name}={value}"
    return next(iter(suggest_options(cfg, name, value)), None)


def _find(arguments: Sequence[str], key: str) -> str:
    return next((word for word in arguments if word.lstrip("+~").split("=")[0] == key), key)


def _correct_key(program: str, arguments: Sequence[str], key: str, is_added: bool) -> list[str]:
    """Add an option that the class of its node takes; exit with suggestions for other options."""
    word = _find(arguments, key)
    parent, _, name = key.rpartition(".")
    cfg = compose_accepted(program, [other for other in arguments if other != word])
    if off := _find_null(cfg, parent):
        fail(f"{word}: there is no {off} in this configuration (it is null): leave it out")
    node = select_node(cfg, parent)
    may_add = is_added and (bool(parent) or program in CONFIGURED_PROGRAMS)
    if key.partition(".")[0] in FREE_NODES or _accepts(node, name, may_add):
        return [f"++{other}" if other == word else other for other in arguments]
    return _refuse(program, arguments, key, word, "no such option")


def _find_null(cfg: DictConfig, key: str) -> str | None:
    """Return the first part of a dotted name whose node is null, None if there is none."""
    parts = key.split(".")
    for length in range(len(parts)):
        parent = select_node(cfg, ".".join(parts[:length]))
        name = parts[length]
        if isinstance(parent, DictConfig) and name in parent and parent[name] is None:
            return ".".join(parts[: length + 1])
    return None


def _accepts(node: Any, name: str, is_added: bool) -> bool:
    """Tell whether a node may get an option: one of its class, or any added to a plain node."""
    if not isinstance(node, DictConfig):
        return is_added
    names = list_arguments(node)
    if names is None or name in names:
        return names is not None or is_added
    is_plain = "_target_" not in node
    return is_added and is_plain and not get_close_matches(name, map(str, node), cutoff=0.8)


def _refuse(program: str, arguments: Sequence[str], key: str, word: str, reason: str) -> NoReturn:
    """Exit with the options that were meant, else with those of the same node."""
    cfg = compose_accepted(program, [other for other in arguments if other != word])
    value = word.partition("=")[2]
    sigil = "~" if word.startswith("~") else ""
    if near := suggest_options(cfg, key, value):
        fail(f"{word}: {reason}: did you mean {' or '.join(sigil + option for option in near)}?")
    parent = key.rpartition(".")[0]
    groups = list_program_groups(cfg)
    if reason == "no such config group":
        sub = [group for group in groups if group.startswith(f"{key}/")]
        fail(f"{word}: {reason}: recon.{program} has {', '.join(sub or groups) or 'none'}")
    siblings = sorted(list_siblings(cfg, parent, [])) if parent else []
    if siblings:
        fail(f"{word}: {reason}: {parent} has {', '.join(siblings)}")
    fail(f"{word}: {reason}: python -m recon.{program} --cfg job prints all options")


def _refuse_choice(error: Any, text: str) -> NoReturn:
    """Exit with the choices of a config group that lacks the chosen one."""
    missing = str(error.missing_cfg_file or "")
    group, _, choice = missing.rpartition("/")
    if group.startswith("hydra/") and choice in EXTRAS:
        fail(
            f"{group}={choice}: is not installed: pip install 'recon-pointcloud[{EXTRAS[choice]}]'"
        )
    options = [str(option) for option in error.options or () if option != "parts"]
    if not group or not options:
        fail(text.split("\n")[0])
    near = format_suggestion(choice, options, f"{group}={{}}")
    fail(f"{group}={choice}: no such choice: {near or 'choose among ' + ', '.join(options)}")
