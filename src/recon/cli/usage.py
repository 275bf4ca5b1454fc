"""List the programs and the commands to start each of them with."""

from typing import NamedTuple


class Program(NamedTuple):
    """A program: its purpose in one line, and commands to start with, each with its purpose."""

    summary: str
    commands: tuple[tuple[str, str], ...]


PROGRAMS = {
    "train": Program(
        "train a network: pretraining, fine-tuning, segmentation",
        (
            ("experiment=pretrain_furniture", "the demo, on bundled data, in minutes"),
            ("experiment=pretrain_folder data.root=<your shapes>", "your own data"),
            ("experiment=pretrain_shapenet data.root=<ShapeNet55-34>", "the paper's data"),
        ),
    ),
    "evaluate": Program(
        "measure frozen features or a trained classifier",
        (
            (
                "experiment=svm_furniture checkpoint=<run>/checkpoints/last.ckpt",
                "a linear SVM on pretrained features",
            ),
            (
                "experiment=zeroshot_furniture checkpoint=<run>/checkpoints/last.ckpt",
                "zero-shot classification",
            ),
            (
                "task=classify checkpoint=<run>/checkpoints/best.ckpt data=folder "
                "data.root=<your shapes> data.test_split=all",
                "a fine-tuned classifier on your own data",
            ),
        ),
    ),
    "segment": Program(
        "label every point of your files",
        (("checkpoint=<run>/checkpoints/best.ckpt files=<scan.ply>", "a trained segmenter"),),
    ),
    "embed": Program(
        "write the features of shapes to a table",
        (
            (
                "checkpoint=<run>/checkpoints/last.ckpt files=<your shapes> out=features.parquet",
                "a folder of shapes",
            ),
            (
                "checkpoint=<run>/checkpoints/last.ckpt data=furniture out=features.parquet",
                "a data set",
            ),
        ),
    ),
    "search": Program(
        "find the shapes of a table nearest to a shape or a sentence",
        (
            ('features=features.parquet query="a desk lamp"', "by a sentence"),
            ("features=features.parquet query=<shape.ply>", "by a shape"),
        ),
    ),
    "prepare": Program(
        "check a data set and write it in a layout that is fast to read",
        (
            ("data=folder data.root=<your shapes>", "your own data"),
            ("data=folder data.root=<your shapes> check_only=true", "check without writing"),
            ("data=shapenet data.root=<ShapeNet55-34>", "the paper's data"),
        ),
    ),
    "figures": Program(
        "draw the figures of a finished run",
        (("run=<folder of a run> out=figures", "all figures as PNG files"),),
    ),
    "export": Program(
        "export weights to the Hub, the released format, ONNX or torch.export",
        (
            ("checkpoint=<run>/checkpoints/last.ckpt out=<folder>", "with a model card"),
            ("checkpoint=<run>/checkpoints/last.ckpt out=<folder> format=onnx", "as a graph"),
        ),
    ),
    "info": Program(
        "inspect a checkpoint", (("<run>/checkpoints/last.ckpt", "its network, run and metrics"),)
    ),
}
"""The programs of this library, by name."""


def format_start(name: str) -> str:
    """Return the commands to start a program with, one a line, each after its purpose."""
    program = PROGRAMS[name]
    lines = [f"recon.{name}: {program.summary}. To start:", ""]
    for command, purpose in program.commands:
        lines += [f"  # {purpose}", f"  python -m recon.{name} {command}"]
    lines += ["", f"All options: python -m recon.{name} --help"]
    return "\n".join(lines)


def format_programs() -> str:
    """Return the list of programs, one a line."""
    lines = ["usage: recon <program> <options>, or python -m recon.<program> <options>", ""]
    lines += [f"  {name:10} {program.summary}" for name, program in PROGRAMS.items()]
    lines += ["", "A program without options prints the commands to start with."]
    return "\n".join(lines)
