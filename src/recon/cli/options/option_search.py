"""Find the options that a misspelled name, or the name of another tool, may stand for."""

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import fail
from recon.cli.options.config_groups import list_choices, list_groups

SYNONYMS = {
    "amp": "trainer.precision",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "ckpt": "ckpt_path",
    "config": "experiment",
    "cuda": "trainer.accelerator",
    "data_dir": "data.root",
    "data_path": "data.root",
    "dataset": "data",
    "device": "trainer.accelerator",
    "dir": "data.root",
    "embed_dim": "model.dim",
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "exp": "experiment",
    "folder": "data.root",
    "gpu": "trainer.devices",
    "gpus": "trainer.devices",
    "hidden_size": "model.dim",
    "init": "checkpoint",
    "layers": "model.depth",
    "learning_rate": "optimizer.lr",
    "mask_ratio": "mask.ratio",
    "n_points": "num_points",
    "npoints": "num_points",
    "num_layers": "model.depth",
    "out": "output_dir",
    "output": "output_dir",
    "path": "data.root",
    "resume": "ckpt_path",
    "steps": "trainer.max_steps",
    "wd": "optimizer.weight_decay",
    "width": "model.dim",
    "workers": "data.num_workers",
}
"""Options by the names that other tools give them."""


def compose_accepted(program: str, arguments: Sequence[str]) -> DictConfig:
    """Compose a program's configuration with the options, if it accepts them."""
    from hydra import compose, initialize_config_dir

    words = [word for word in arguments if "=" in word and not word.startswith(("-", "hydra"))]
    chosen = [word for word in words if word.split("=")[0] in list_groups()]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for overrides in (words, chosen, []):
            try:
                return compose(program, list(overrides), return_hydra_config=True)
            except Exception as error:
                if not overrides:
                    fail(str(error))
    raise AssertionError


def list_program_groups(cfg: DictConfig) -> list[str]:
    """Return the config groups that a composed configuration has choices for."""
    chosen = map(str, cfg.hydra.runtime.choices)
    return sorted(group for group in chosen if group in list_groups())


def suggest_options(cfg: DictConfig, key: str, value: str) -> list[str]:
    """Return up to three options `name=value` that were meant by a key, the likeliest first."""
    groups = list_program_groups(cfg)
    parent, _, name = key.rpartition(".")
    for group in groups:
        names = {parent, *((key, group.rpartition("/")[0]) if not parent else ())}
        if group.replace("/", ".") in names and value in list_choices(group):
            return [f"{group}={value}"]  # model.size=small
        if group.rpartition("/")[0] == key and value in list_choices(group):
            return [f"{group}={value}"]  # loss=infonce
        if not parent and value.lower() in ("true", "1", "yes") and name in list_choices(group):
            return [f"{group}={name}"]  # wandb=true
    keys = [near for near in suggest_keys(cfg, key) if near != key and near != parent]
    return [f"{near}={value}" if value else near for near in dict.fromkeys(keys)]


def suggest_keys(cfg: DictConfig, key: str) -> list[str]:
    """Return up to three options and groups that a name may stand for, the likeliest first."""
    groups = list_program_groups(cfg)
    keys = [name for name in list_keys(cfg) if not name.startswith(("task.", "hydra"))]
    parent, _, name = key.rpartition(".")
    siblings = list_siblings(cfg, parent, groups)
    if near := get_close_matches(name.lower(), sorted(siblings), n=1, cutoff=0.76):
        return [f"{parent}.{near[0]}" if parent else near[0]]
    for word in (key.lower(), name.lower().replace("-", "_")):
        if SYNONYMS.get(word) in {*keys, *groups}:
            return [SYNONYMS[word]]
    same = [option for option in keys if option.rpartition(".")[2] == name]
    if same:
        return sorted(same, key=lambda option: option.count("."))[:3]
    started = [sibling for sibling in siblings if len(name) > 2 and sibling.startswith(name)]
    if started:
        return [f"{parent}.{word}" if parent else word for word in sorted(started)[:3]]
    whole = get_close_matches(key, [*keys, *groups], n=2, cutoff=0.75)
    last = get_close_matches(name, {option.rpartition(".")[2] for option in keys}, n=1, cutoff=0.8)
    ends = [option for option in keys if option.rpartition(".")[2] in last]
    return whole or sorted(ends, key=lambda option: option.count("."))[:3]


def list_siblings(cfg: DictConfig, parent: str, groups: Sequence[str]) -> set[str]:
    """Return the options of a node, those that its class takes, and at the top the groups."""
    node = select_node(cfg, parent)
    if not isinstance(node, DictConfig):
        return set()
    own = {name for name in map(str, node) if not name.startswith("_") and name != "hydra"}
    return own | (list_arguments(node) or set()) | set(() if parent else groups)


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

    Empty for a node without `_target_`, None if the names are unknown or arbitrary.
    """
    from hydra.utils import get_object

    target = OmegaConf.to_container(node).get("_target_")  # type: ignore[union-attr]
    if not isinstance(target, str):
        return set()
    try:
        built = get_object(target)
    except (ImportError, ValueError):  # the error is reported when the object is built
        return None
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


def select_node(cfg: DictConfig, key: str) -> Any:
    """Return a node by its dotted name, None if there is none."""
    if not key:
        return cfg
    try:
        return OmegaConf.select(cfg, key, throw_on_missing=False, throw_on_resolution_failure=False)
    except Exception:  # the key goes through a value that is not a node
        return None
