"""Start a program: the commands to start with, its options, errors of Hydra in one line."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

from recon.cli.errors import fail
from recon.cli.options.arguments import normalize_arguments, remove_plus_signs
from recon.cli.options.renamed_options import check_renamed_options


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
    "convert": Program(
        "convert point clouds and meshes to .ply, .pcd, .las, .laz, .npz or .parquet",
        (
            ("in=<scan.e57> out=<scan.las>", "a file"),
            ("in=<your shapes> out=<folder> format=ply", "a folder"),
        ),
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


class _ConfigError(Exception):
    """An error of Hydra before the program's own code runs; the error is the cause."""


def run_program(name: str, main: Callable[[], Any]) -> None:
    """Run a program's Hydra function with the options of the command line.

    Without options, it prints the commands to start with and exits with code 2. Options that Hydra
    does not accept are corrected where there is one meaning, else they end with one line.
    """
    arguments = sys.argv[1:]
    if not arguments and name in PROGRAMS:
        print(format_start(name))
        sys.exit(2)
    if arguments == ["--version"]:
        print(f"recon {version('recon-pointcloud')}")
        return
    check_renamed_options(name, arguments)
    arguments, added = remove_plus_signs(normalize_arguments(name, arguments))
    for _ in range(len(arguments) + 1):  # each pass corrects one option
        sys.argv[1:] = arguments
        try:
            with _raise_config_errors():
                main()
            return
        except _ConfigError as error:
            cause = error.__cause__ or error
        from recon.cli.options.suggestions import correct_options

        arguments = correct_options(name, arguments, cause, added)
    fail(str(cause))


@contextmanager
def _raise_config_errors() -> Iterator[None]:
    """Raise `_ConfigError` where Hydra would print its error and exit."""
    import hydra._internal.utils
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # Hydra has no public way to handle its errors.
    hydra_utils: Any = hydra._internal.utils
    report = hydra_utils.run_and_report

    def raise_or_report(function: Callable[[], Any]) -> Any:
        def run() -> Any:
            try:
                return function()
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                if isinstance(error, ValueError) and not _is_raised_in("hydra", error):
                    raise
                failures.append(error)
                sys.exit(1)  # Hydra does not report it

        return report(run)

    failures = list[Exception]()
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        hydra_utils.run_and_report = raise_or_report
    try:
        yield
    except SystemExit:
        if not failures:
            raise
        raise _ConfigError(str(failures[0])) from failures[0]
    finally:
        hydra_utils.run_and_report = report


def _is_raised_in(package: str, error: BaseException) -> bool:
    """Tell whether an error was raised by the code of a package itself."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith(f"{package}.")
