"""Read the runs of claims.sh and write what they measured as a page of tables.

python scripts/reproduce/claims_table.py outputs/claims docs/results/claims.md
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

STUDENTS = {
    "recon": "ReCon",
    "generative": "generative student alone",
    "contrastive": "contrastive students alone",
    "multitask": "plain multi-task, no stop-gradient",
    "two_towers": "two towers",
    "scratch": "supervised from scratch",
}
Read = Callable[[Path], float]


def spread(values: Sequence[float]) -> str:
    """Return the mean and, of several values, their standard deviation, in %."""
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def read(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the results of a student's runs by seed."""
    found = sorted((folder / name).glob("*/results.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def one_view(results: dict[str, Any]) -> float:
    """Return the overall accuracy of one view."""
    return results["results"]["one view"]["overall_accuracy"]["mean"]


def few_shot(folder: Path, name: str) -> dict[str, float]:
    """Return the mean over the folds of each seed."""
    found = {}
    for path in sorted((folder / name).glob("*/sweep.json")):
        (rows,) = json.loads(path.read_text()).values()
        found[path.parent.name] = statistics.mean(next(iter(rows.values()))) / 100
    return found


def table(folder: Path) -> list[str]:
    """Return the lines of the table, a student each."""
    lines = [
        "| student | linear SVM | zero-shot | few-shot, 5w5s | fine-tuned |",
        "|---|---|---|---|---|",
    ]
    controls: dict[str, list[float]] = {"untrained": [], "calibrated": []}
    for name, title in STUDENTS.items():
        pretrained = read(folder / "pretrain", name)
        svm = [row["svm"]["pretrained"][0] for row in pretrained.values()]
        zero = [row["zero_shot"] for row in pretrained.values() if row["zero_shot"] is not None]
        if name == "recon":
            for control, values in controls.items():
                values += [row["svm"][control][0] for row in pretrained.values()]
        tuned = [one_view(row) for row in read(folder / "finetune", name).values()]
        shots = [*few_shot(folder / "few_shot", name).values()]
        cells = " | ".join(spread(values) for values in (svm, zero, shots, tuned))
        lines.append(f"| {title} | {cells} |")
    names = {"untrained": "untrained", "calibrated": "untrained, batch statistics measured"}
    lines += [f"| {names[key]} | {spread(v)} | - | - | - |" for key, v in controls.items()]
    return lines


def paired(folder: Path) -> list[str]:
    """Return a line for each comparison with ReCon, seed by seed."""
    measured: dict[str, Callable[[str], dict[str, float]]] = {
        "linear SVM": lambda name: {
            seed: row["svm"]["pretrained"][0]
            for seed, row in read(folder / "pretrain", name).items()
        },
        "few-shot": lambda name: few_shot(folder / "few_shot", name),
        "fine-tuned": lambda name: {
            seed: one_view(row) for seed, row in read(folder / "finetune", name).items()
        },
    }
    lines = ["| ReCon minus | linear SVM | few-shot | fine-tuned |", "|---|---|---|---|"]
    for other in [name for name in STUDENTS if name != "recon"]:
        cells = []
        for values in measured.values():
            ours, theirs = values("recon"), values(other)
            gains = [100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]
            cells.append(" ".join(f"{gain:+.1f}" for gain in gains) or "-")
        lines.append(f"| {STUDENTS[other]} | {' | '.join(cells)} |")
    return lines


def budget(folder: Path) -> str:
    """Say how long everything was trained."""
    epochs = []
    for kind in ("pretrain", "finetune"):
        path = next((folder / kind).glob("*/*/config.yaml"))
        epochs.append(OmegaConf.load(path).trainer.max_epochs)
    seeds = len([*(folder / "pretrain" / "recon").glob("*/results.json")])
    return (
        f"Every student {epochs[0]} epochs of pretraining, {epochs[1]} of fine-tuning and of each "
        f"few-shot episode, {seeds} seeds."
    )


def main() -> None:
    """Print the tables, and write them between the marks of a page that has them."""
    folder, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = "\n".join([budget(folder), "", *table(folder), "", *paired(folder)])
    print(text)
    begin, end = "<!-- tables -->", "<!-- end of tables -->"
    old = page.read_text() if page.is_file() else f"# Does the claim hold here?\n\n{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
