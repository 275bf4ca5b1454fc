"""Answer options that Hydra does not accept: correct them, or name the ones that were meant."""

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import fail

SYNONYMS = {
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "cuda": "trainer.accelerator",
    "device": "trainer.accelerator",
    "dataset": "data",
    "data_path": "data.root",
    "data_dir": "data.root",
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "gpu": "trainer.devices",
    "gpus": "trainer.devices",
    "init": "checkpoint",
    "learning_rate": "optimizer.lr",
    "mask_ratio": "mask.ratio",
    "n_points": "num_points",
    "npoints": "num_points",
    "output": "output_dir",
    "resume": "ckpt_path",
    "steps": "trainer.max_steps",
    "wd": "optimizer.weight_decay",
    "workers": "data.num_workers",
}
"""Options by the names that other tools give them."""
CONFIGURED_PROGRAMS = ("train", "evaluate", "cache_teachers")
"""Programs whose configuration is stored, with the options that a user adds."""
EXTRAS = {"optuna": "sweeps", "submitit_slurm": "slurm", "submitit_local": "slurm"}
"""Extras of this package that provide Hydra's plugins."""


def format_suggestion(name: str, choices: Iterable[str], template: str = "{}") -> str:
    """Return "did you mean ...?" with the choices nearest to a name, "" if none is near."""
    near = get_close_matches(name, list(choices), n=3, cutoff=0.6)
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


def _find(arguments: Sequence[str], key: str) -> str:
    return next((word for word in arguments if word.lstrip("+~").split("=")[0] == key), key)


def _correct_key(program: str, arguments: Sequence[str], key: str, is_added: bool) -> list[str]:
    """Add an option that the class of its node takes; exit with suggestions for other options."""
    word = _find(arguments, key)
    parent, _, name = key.rpartition(".")
    cfg = _compose(program, [other for other in arguments if other != word])
    off = next((part for part in _prefixes(parent) if parent and _is_null(cfg, part)), None)
    if off is not None:
        fail(f"{word}: there is no {off} in this configuration (it is null): leave it out")
    node = _select(cfg, parent)
    if _accepts(node, name, is_added and (bool(parent) or program in CONFIGURED_PROGRAMS)):
        return [f"++{other}" if other == word else other for other in arguments]
    return _refuse(program, arguments, key, word, "no such option")


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
    cfg = _compose(program, [other for other in arguments if other != word])
    value = f"={word.partition('=')[2]}" if "=" in word else ""
    sigil = word[: len(word) - len(word.lstrip("+~"))] if word.startswith("~") else ""
    near = suggest_keys(cfg, key)
    if near:
        meant = " or ".join(f"{sigil}{option}{value}" for option in near)
        fail(f"{word}: {reason}: did you mean {meant}?")
    parent = key.rpartition(".")[0]
    node = _select(cfg, parent)
    if parent and isinstance(node, DictConfig):
        fail(f"{word}: {reason}: {parent} has {', '.join(map(str, node))}")
    fail(f"{word}: {reason}: list all with python -m recon.{program} --help")


def _refuse_choice(error: Any, text: str) -> NoReturn:
    """Exit with the choices of a config group that lacks the chosen one."""
    missing = str(error.missing_cfg_file or "")
    group, _, choice = missing.rpartition("/")
    if group.startswith("hydra/") and choice in EXTRAS:
        fail(
            f"{group}={choice}: is not installed: pip install 'recon-pointcloud[{EXTRAS[choice]}]'"
        )
    options = [str(option) for option in error.options or ()]
    if not group or not options:
        fail(text.split("\n")[0])
    near = format_suggestion(choice, options, f"{group}={{}}")
    fail(f"{group}={choice}: no such choice: {near or 'choose among ' + ', '.join(options)}")


def find_option(program: str, name: str, value: str) -> str:
    """Return the option that a name stands for, the name itself if none is near."""
    cfg = _compose(program, [])
    if OmegaConf.select(cfg, name, throw_on_missing=False) is not None or name in _groups():
        return name
    return (suggest_keys(cfg, name) or [name])[0]


def suggest_keys(cfg: DictConfig, key: str) -> list[str]:
    """Return up to three options and groups that a name may stand for, the likeliest first."""
    keys, (parent, _, name) = list_keys(cfg), key.rpartition(".")
    if (synonym := SYNONYMS.get(key.lower())) in {*keys, *_groups()}:
        return [str(synonym)]
    node = _select(cfg, parent)
    if isinstance(node, DictConfig):
        siblings = {*map(str, node), *(list_arguments(node) or ()), *(() if parent else _groups())}
        if near := get_close_matches(name, sorted(siblings), n=1, cutoff=0.76):
            return [f"{parent}.{near[0]}" if parent else near[0]]
    roots = [option for option in keys if not option.startswith(("task.", "hydra."))]
    same = [option for option in roots if option.rpartition(".")[2] == name]
    if same:
        return sorted(same, key=lambda option: option.count("."))[:3]
    whole = get_close_matches(key, [*roots, *_groups()], n=2, cutoff=0.75)
    last = get_close_matches(name, {option.rpartition(".")[2] for option in roots}, n=1, cutoff=0.8)
    ends = [option for option in roots if option.rpartition(".")[2] in last]
    return whole or sorted(ends, key=lambda option: option.count("."))[:3]


def list_keys(cfg: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of all nodes of a configuration."""
    keys = []
    names = map(str, cfg) if isinstance(cfg, DictConfig) and not cfg._is_none() else ()
    for name in names:
        key = f"{prefix}{name}"
        node = cfg._get_node(name)
        keys += [key, *list_keys(node, f"{key}.")] if not node._is_interpolation() else [key]
    return keys


def list_arguments(node: DictConfig) -> set[str] | None:
    """Return the names of the arguments of the class or function that a node builds.

    Empty for a node without `_target_`, None if it takes arguments of any name.
    """
    from hydra.utils import get_object

    target = OmegaConf.to_container(node).get("_target_")  # type: ignore[union-attr]
    if not isinstance(target, str):
        return set()
    built = get_object(target)
    names = set[str]()
    # Arguments that a class does not name may be those of its base class.
    for function in [vars(c).get("__init__") for c in built.__mro__] if isclass(built) else [built]:
        if function is None or function is object.__init__:
            continue
        parameters = signature(function).parameters.values()
        named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        names |= {p.name for p in parameters if p.kind in named} - {"self"}
        if all(p.kind is not Parameter.VAR_KEYWORD for p in parameters):
            return names
    return None


def _groups() -> set[str]:
    """Return the names of the config groups."""
    root = Path(conf_dir())
    folders = {path.parent for path in root.rglob("*.yaml") if "parts" not in path.parts}
    return {folder.relative_to(root).as_posix() for folder in folders - {root}}


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def _is_null(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = _select(cfg, parent)
    return isinstance(node, DictConfig) and name in node and node[name] is None


def _select(cfg: DictConfig, key: str) -> Any:
    if not key:
        return cfg
    try:
        return OmegaConf.select(cfg, key, throw_on_missing=False, throw_on_resolution_failure=False)
    except Exception:  # the key goes through a value that is not a node
        return None


def _compose(program: str, arguments: Sequence[str]) -> DictConfig:
    """Compose a program's configuration with the options, if it accepts them."""
    from hydra import compose, initialize_config_dir

    words = [word for word in arguments if "=" in word and not word.startswith(("-", "hydra"))]
    groups = [word for word in words if word.split("=")[0] in _groups()]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for chosen in (words, groups, []):
            try:
                return compose(program, list(chosen))
            except Exception as error:
                if not chosen:
                    sys.exit(f"error: {error}")
    raise AssertionError
