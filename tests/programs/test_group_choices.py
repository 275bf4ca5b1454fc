"""Each choice of each config group changes each experiment, or is refused."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.options.unused_options import check_options_have_effect

CONF = Path(conf_dir())
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = {
    "train": (
        "model", "mask", "loss/reconstruction", "loss/distillation", "loss/self_contrast",
        "teacher", "data", "transform", "optimizer", "scheduler", "trainer", "callbacks",
        "callbacks/guard", "logger", "protocol", "probe", "student",
    ),
    "evaluate": ("data", "task"),
}  # fmt: skip
OF_THE_TASK = {
    "data.channels", "data.split", "data.test_split", "data.drop_last", "data.target_up",
    "model.groups", "trainer.gradient_clip_val",
}  # fmt: skip
"""Values that an experiment or student sets for its task, whatever data set, size or trainer."""


def program_of(experiment: str) -> str:
    return "evaluate" if experiment.startswith(("svm_", "zeroshot_")) else "train"


def list_choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def iter_leaves(content: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from iter_leaves(value, f"{prefix}.{name}".strip("."))
    else:
        yield prefix, content


def own_values(group: str, choice: str) -> dict[str, Any]:
    """Return the values that a choice's file sets itself, by their names in the configuration."""
    path = CONF / group / f"{choice}.yaml"
    header = path.read_text().split("\n")[0]
    package = group.replace("/", ".")
    if header.startswith("# @package"):
        package = header.split()[-1].replace("_global_", "")
    content = OmegaConf.to_container(OmegaConf.load(path))
    defaults = content.pop("defaults", [])
    if not content:  # it combines other choices
        return {k: v for name in defaults for k, v in own_values(group, name).items()}
    return dict(iter_leaves(content, package))


def read_raw(cfg: DictConfig, key: str) -> Any:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return None
    container = OmegaConf.to_container(node)
    return container.get(name) if isinstance(container, dict) else None


def find_ineffective(cfg: DictConfig, group: str, choice: str) -> list[str]:
    """Return the values of a choice that the configuration does not have, unless it is refused."""
    try:
        check_options_have_effect(cfg, [f"{group}={choice}"])
    except ValueError:
        return []
    expected = own_values(group, choice)
    return [
        f"{group}={choice}: {key} is {read_raw(cfg, key)!r}, not {value!r}"
        for key, value in expected.items()
        if key not in OF_THE_TASK and read_raw(cfg, key) != value
    ]


def combine_choices(program: str, chosen: DictConfig) -> list[dict[str, str]]:
    """Return choices to compose together, so that each choice except the own ones occurs once."""
    columns = [
        [(group, name) for name in list_choices(group) if chosen.get(group) != name]
        for group in GROUPS[program]
    ]
    # A student may switch off what other groups choose: combine it with few of them.
    num_rows = max(map(len, columns))
    columns[-1] = [None] * (num_rows - len(columns[-1])) + columns[-1]
    return [dict(filter(None, row)) for row in zip_longest(*columns)]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_each_choice_of_a_group_wins_over_the_experiment(experiment: str) -> None:
    program = program_of(experiment)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        words = [f"experiment={experiment}"]
        chosen = compose(program, words, return_hydra_config=True).hydra.runtime.choices
        failures = []
        for choices in combine_choices(program, chosen):
            cfg = compose(
                program, [*words, *(f"{group}={name}" for group, name in choices.items())]
            )
            for group, name in choices.items():
                failures += find_ineffective(cfg, group, name)
    assert not failures, "\n".join(failures)
