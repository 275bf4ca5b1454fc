"""Read the arguments of a command line: options in Hydra's form, and words in other forms."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from recon.cli.errors import fail
from recon.cli.options.config_groups import list_choices, list_groups, normalize_choice
from recon.cli.options.overrides import TEXT_OPTIONS, normalize_override

VALUE_FLAGS = frozenset(
    ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn")
    + ("--config-dir", "-cd", "--experimental-rerun", "--info", "-i")
)
"""Flags of Hydra that take a value."""
FLAGS = VALUE_FLAGS | frozenset(
    ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
    + ("--shell-completion", "-sc")
)
"""All flags of Hydra."""
MAIN_OPTIONS = {
    "train": "data.root",
    "prepare": "data.root",
    "segment": "files",
    "convert": "in",
    "embed": "files",
    "search": "query",
    "figures": "run",
}
"""Options for a path without a name, by program; `checkpoint` in other programs."""
SUFFIXES = ("ckpt", "pth", "pt", "ply", "obj", "npy", "npz", "parquet", "csv", "glb", "gltf", "off")
_OVERRIDE = re.compile(r"([~+]*[\w$][\w$./@:-]*)=(.*)", re.DOTALL)


def normalize_arguments(program: str, arguments: Sequence[str]) -> list[str]:
    """Return arguments that Hydra reads as they are meant; exit if that cannot be told.

    Paths and sentences keep all their characters, and `~/` becomes the home directory. In a
    multirun, commas still separate the values of a sweep.
    """
    is_multirun = any(
        word in ("-m", "--multirun", "hydra.mode=MULTIRUN") or word.startswith("hparams_search=")
        for word in arguments
    )
    normalized = list[str]()
    for index, word in enumerate(arguments):
        previous = arguments[index - 1] if index else ""
        if previous in VALUE_FLAGS or word.split("=")[0] in FLAGS:
            normalized.append(word)
        elif match := _OVERRIDE.fullmatch(word):
            key, value = match[1], match[2]
            choice = normalize_choice(program, key.lstrip("+"), value)
            normalized.append(choice or normalize_override(key, value, is_multirun=is_multirun))
        elif word.startswith("~") and "=" not in word:
            normalized.append(word)
        else:
            _refuse_word(program, arguments[:index], word, arguments[index + 1 :])
    return normalized


def remove_plus_signs(arguments: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the options without `+`, and the names of those that had one."""
    added = {
        word.lstrip("+").split("=")[0]
        for word in arguments
        if word.startswith("+") and not word.lstrip("+").startswith("hydra.")
    }
    plain = [w.lstrip("+") if w.lstrip("+").split("=")[0] in added else w for w in arguments]
    return plain, added


def _refuse_word(
    program: str, before: Sequence[str], word: str, following: Sequence[str]
) -> NoReturn:
    """Exit with the form in which an argument that is not an option has to be written."""
    value = following[0] if following and not re.search(r"^-|=", following[0]) else ""
    if re.fullmatch(r"-+[\w./-]+(=.*)?", word, re.DOTALL):
        _refuse_flag(program, word, value)
    if not word.strip() or word.startswith("=") or following[:1] == ["="]:
        fail(f"{word or 'empty argument'}: write <option>=<value> without spaces around =")
    if re.fullmatch(r"\w[\w./]*:.+", word) and not Path(word).exists():
        fail(f"{word}: write {word.replace(':', '=', 1)}")
    option = MAIN_OPTIONS.get(program, "checkpoint")
    previous = before[-1] if before else ""
    key = previous.partition("=")[0].rpartition(".")[2]
    is_given = any(text.startswith(f"{option}=") for text in before)
    if "=" in previous and (key == "name" or key in TEXT_OPTIONS) and (is_given or key == "name"):
        rest = [text for text in following if "=" not in text]
        fail(f'{word}: a value with spaces needs quotes: "{" ".join([previous, word, *rest])}"')
    if re.fullmatch(r"\w+(\.\w+)+", word) and value and Path(word).suffix[1:] not in SUFFIXES:
        fail(f"{word}: write {word}={value}")
    _refuse_group(program, word, value)
    if option != "data.root" or Path(word).expanduser().exists():
        rest = [text for text in following if "=" not in text]
        text = " ".join([word, *rest]) if option == "query" else word
        fail(f"{word}: write " + (f'"{option}={text}"' if " " in text else f"{option}={text}"))
    fail(f"{word}: write <option>=<value>")


def _refuse_group(program: str, word: str, value: str) -> None:
    """Exit with the option for a word that is a choice, or the name of a group or option."""
    for group in ("experiment", "data", "task", "debug"):
        if word in list_choices(group) and (group != "data" or program == "prepare"):
            fail(f"{word}: write {group}={word}")
    if (word in list_groups() or word in TEXT_OPTIONS) and value:
        fail(f"{word}: write {word}={value}")
    if word in list_groups():
        fail(f"{word}: write {word}=<name>: choose among {', '.join(list_choices(word))}")


def _refuse_flag(program: str, word: str, value: str) -> NoReturn:
    """Exit with the option that an argument with dashes stands for."""
    from recon.cli.options.suggestions import find_option

    name, _, own_value = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    option = find_option(program, name, own_value or value or "<value>")
    if option is None:
        fail(f"{word}: no such flag or option: python -m recon.{program} --help")
    fail(f"{word}: options have no dashes: write {option}")
