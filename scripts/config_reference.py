"""Generate docs/configuration.md from conf/: python scripts/config_reference.py."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "configuration.md"
INTRODUCTION = """# Configuration

All options of all programs and config groups. `python scripts/config_reference.py` generates this
page from [conf/](../conf). Set an option with `group.key=value` and choose a group's file with
`group=name`. `--cfg job` after a command prints the composed configuration, `--help` the groups.
`${...}` refers to another option, `???` must be set, and the keys beside a `_target_` are the
arguments of that class or function.
"""
GROUP_DESCRIPTIONS = {
    "callbacks": "Lightning callbacks",
    "callbacks/guard": "handling of non-finite losses and gradients ([fault tolerance](faults.md))",
    "data": "data sets; each has [a card](data/README.md)",
    "debug": "settings for a quick trial",
    "hparams_search": "hyperparameter searches and grids of ablations ([sweeps](sweeps.md))",
    "hydra/launcher": "where the jobs of a multirun run ([clusters](cluster.md))",
    "logger": "Lightning loggers ([dashboards](dashboards.md))",
    "loss/distillation": "the loss between a projected query and its teacher's feature",
    "loss/reconstruction": "the loss between reconstructed and true patches",
    "loss/self_contrast": "a contrastive loss between clouds, on the cls query",
    "mask": "which patches are masked",
    "model": "network sizes",
    "optimizer": "torch optimizers",
    "probe": "a linear SVM during pretraining",
    "protocol": "which layers of a classifier are trained",
    "scheduler": "learning-rate schedules",
    "student": "the LightningModule and its network",
    "task": "evaluations of `recon.evaluate`",
    "teacher": "image and text teachers",
    "trainer": "the Lightning Trainer: devices, epochs, precision",
    "transform": "augmentations",
}


def render_reference() -> str:
    """Return the page; raise ValueError for groups without description and unknown classes."""
    page = [INTRODUCTION, "## Programs"]
    programs = sorted(CONF.glob("*.yaml"))
    page += [_render_option(path, f"python -m recon.{path.stem}") for path in programs]
    folders = {path.parent for path in CONF.rglob("*.yaml") if "parts" not in path.parts}
    groups = sorted(folder.relative_to(CONF).as_posix() for folder in folders - {CONF})
    for group in groups:
        if group == "experiment":
            page += [_render_experiments()]
        elif group in GROUP_DESCRIPTIONS:
            text = GROUP_DESCRIPTIONS[group]
            page += [f"## `{group}=`\n\n{text[0].upper()}{text[1:]}."]
            page += [
                _render_option(p, f"{group}={p.stem}")
                for p in sorted((CONF / group).glob("*.yaml"))
            ]
        else:
            raise ValueError(
                f"conf/{group}: describe it in GROUP_DESCRIPTIONS of {Path(__file__).name}"
            )
    return "\n\n".join(part.strip() for part in page) + "\n"


def _render_option(path: Path, title: str) -> str:
    """Return the section of one file: its content and its classes."""
    text = path.read_text().strip()
    title = title.replace("python -m recon.cache_teachers", "python scripts/cache_teachers.py")
    lines = [f"### `{title}`", f"```yaml\n{text}\n```"]
    if targets := _link_targets(path):
        lines.append("Classes: " + ", ".join(targets) + ".")
    return "\n\n".join(lines)


def _link_targets(path: Path) -> list[str]:
    """Return a link to each class that a file or its included parts name."""
    used = re.findall(r"parts/(\w+)@_here_", path.read_text())
    files = [path, *(path.parent / "parts" / f"{name}.yaml" for name in used)]
    names = [n for file in files for n in re.findall(r"_target_: ([\w.]+)", file.read_text())]
    return [_link_class(name, path) for name in dict.fromkeys(names)]


def _link_class(name: str, path: Path) -> str:
    module, _, member = name.rpartition(".")
    if not module.startswith("recon"):
        return f"`{name}`"
    source = ROOT / "src" / f"{module.replace('.', '/')}.py"
    if not source.is_file() or not re.search(rf"^(class|def) {member}\b", source.read_text(), re.M):
        raise ValueError(f"{path}: names {name}, which does not exist")
    return f"[`{name}`](../{source.relative_to(ROOT).as_posix()})"


def _render_experiments() -> str:
    rows = []
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        text = path.read_text().splitlines()
        comments = [line[2:] for line in text if line.startswith("# ")]
        sentences = [x.strip() for x in comments if not x.startswith(("@package", "python ", "  "))]
        link = f"[`{path.stem}`](../conf/experiment/{path.name})"
        rows.append(f"| {link} | {' '.join(sentences).replace('|', chr(92) + '|')} |")
    head = "Complete recipes, as differences from the defaults. Each file starts with its command."
    return "\n".join(["## `experiment=`", "", head, "", "| | |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(render_reference())
