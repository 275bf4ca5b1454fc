"""Write the tables of a results page from the results of claims.sh.

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


def format_mean_std(values: Sequence[float]) -> str:
    """Format the mean in %, with the standard deviation if there are several values."""
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def read_results(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the results of a student's runs by seed."""
    paths = sorted((folder / name).glob("*/results.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def get_metric(results: dict[str, Any], name: str) -> float:
    """Return the value of a metric in results.json."""
    return results["metrics"][name]["value"]


def get_single_view_accuracy(results: dict[str, Any]) -> float:
    """Return the overall accuracy of a single view."""
    return get_metric(results, "overall_accuracy")


def read_few_shot_accuracy(folder: Path, name: str) -> dict[str, float]:
    """Return the mean over folds for each seed."""
    accuracies = {}
    for path in sorted((folder / name).glob("*/sweep.json")):
        accuracies[path.parent.name] = json.loads(path.read_text())["rows"][0]["value"]
    return accuracies


def build_table(folder: Path) -> list[str]:
    """Return the lines of the table, one per student."""
    lines = [
        "| student | linear SVM | zero-shot | few-shot, 5w5s | fine-tuned |",
        "|---|---|---|---|---|",
    ]
    controls: dict[str, list[float]] = {"untrained": [], "calibrated": []}
    for name, title in STUDENTS.items():
        pretrained = read_results(folder / "pretrain", name)
        svm = [get_metric(row, "linear_svm") for row in pretrained.values()]
        zero = [row["metrics"]["zero_shot"]["value"] for row in pretrained.values()
                if "zero_shot" in row["metrics"]]  # fmt: skip
        if name == "recon":
            for control, values in controls.items():
                baselines = (row["baselines"][control] for row in pretrained.values())
                values += [metrics["linear_svm"]["value"] for metrics in baselines]
        tuned = [
            get_single_view_accuracy(row)
            for row in read_results(folder / "finetune", name).values()
        ]
        shots = [*read_few_shot_accuracy(folder / "few_shot", name).values()]
        cells = " | ".join(format_mean_std(values) for values in (svm, zero, shots, tuned))
        lines.append(f"| {title} | {cells} |")
    names = {"untrained": "random init", "calibrated": "random init, recalibrated BatchNorm"}
    lines += [f"| {names[key]} | {format_mean_std(v)} | - | - | - |" for key, v in controls.items()]
    return lines


def build_paired_table(folder: Path) -> list[str]:
    """Return a line per comparison with ReCon, with the difference for each seed."""
    measured: dict[str, Callable[[str], dict[str, float]]] = {
        "linear SVM": lambda name: {
            seed: get_metric(row, "linear_svm")
            for seed, row in read_results(folder / "pretrain", name).items()
        },
        "few-shot": lambda name: read_few_shot_accuracy(folder / "few_shot", name),
        "fine-tuned": lambda name: {
            seed: get_single_view_accuracy(row)
            for seed, row in read_results(folder / "finetune", name).items()
        },
    }
    lines = ["| ReCon minus | linear SVM | few-shot | fine-tuned |", "|---|---|---|---|"]
    for other in [name for name in STUDENTS if name != "recon"]:
        cells = []
        for values in measured.values():
            recon, others = values("recon"), values(other)
            gains = [100 * (recon[seed] - others[seed]) for seed in recon if seed in others]
            cells.append(" ".join(f"{gain:+.1f}" for gain in gains) or "-")
        lines.append(f"| {STUDENTS[other]} | {' | '.join(cells)} |")
    return lines


def describe_budget(folder: Path) -> str:
    """Describe the training budget."""
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
    """Print the tables, and write them between the markers of the page."""
    folder, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = "\n".join(
        [describe_budget(folder), "", *build_table(folder), "", *build_paired_table(folder)]
    )
    print(text)
    begin, end = "<!-- tables -->", "<!-- end of tables -->"
    text_before = (
        page.read_text() if page.is_file() else f"# Does the claim hold here?\n\n{begin}\n{end}\n"
    )
    head, _, tail = text_before.partition(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail.partition(end)[2]}")


if __name__ == "__main__":
    main()
