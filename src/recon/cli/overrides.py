"""Normalize command-line options before Hydra parses them: paths, `None`, axes, forms of others."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from recon.cli.config_dir import conf_dir
from recon.cli.errors import fail

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

TEXT_OPTIONS = frozenset(
    ("checkpoint", "ckpt_path", "dir", "dirpath", "dump_dir", "features", "files", "folder", "out")
    + ("output_dir", "path", "probe_root", "query", "root", "run", "save_dir")
)
"""Last parts of options whose values are paths or sentences, taken literally."""
AXIS_OPTIONS = frozenset(("up", "target_up", "axis"))
"""Last parts of options whose values are axes, in lower or upper case."""
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
OPTIONAL_GROUPS = frozenset(
    ["data", "debug", "experiment", "hparams_search", "callbacks/guard", "probe", "teacher"]
)
"""Config groups that a configuration may lack, `group=null`."""
OFF = ("null", "none", "false", "off")
"""Values that switch off a group or a callback."""
YAML_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false", "None": "null"}
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
    normalized, previous = list[str](), ""
    for index, word in enumerate(arguments):
        if previous in VALUE_FLAGS or word.split("=")[0] in FLAGS:
            normalized.append(word)
        elif match := _OVERRIDE.fullmatch(word):
            normalized.append(_normalize_override(match[1], match[2], is_multirun))
        elif word.startswith("~") and "=" not in word:
            normalized.append(word)
        else:
            _refuse_word(program, word, arguments[index + 1 : index + 2])
        previous = word
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


def _refuse_word(program: str, word: str, following: Sequence[str]) -> NoReturn:
    """Exit with the form in which an argument that is not an option has to be written."""
    name = re.sub(r"^-+", "", word).partition("=")[0]
    if word.startswith("-") and re.fullmatch(r"[\w./-]+", name):
        from recon.cli.suggestions import find_option

        value = word.partition("=")[2] or next(
            (text for text in following if not text.startswith("-") and "=" not in text), "<value>"
        )
        option = find_option(program, name.replace("-", "_"), value)
        fail(f"{word}: options have no dashes: write {option}={value}")
    if word in ("=", "") or word.startswith("=") or following[:1] == ["="]:
        fail(f"{word or 'empty argument'}: write <option>=<value> without spaces around =")
    if Path(word).expanduser().exists():
        target = {"segment": "files", "embed": "files", "search": "query", "figures": "run"}
        target |= {"train": "data.root", "prepare": "data.root"}
        fail(f"{word}: write {target.get(program, 'checkpoint')}={word}")
    if re.fullmatch(r"[\w./-]+:.+", word):
        fail(f"{word}: write {word.replace(':', '=', 1)}")
    for group in ("experiment", "task"):
        if (Path(conf_dir()) / group / f"{word}.yaml").is_file():
            fail(f"{word}: write {group}={word}")
    fail(
        f"{word}: write <option>=<value>; a value with spaces needs quotes, "
        '"<option>=<value with spaces>"'
    )


def _normalize_override(key: str, value: str, is_multirun: bool) -> str:
    """Return one option with its value quoted or converted where Hydra would read another."""
    name = key.lstrip("+~")
    group = _normalize_group(name, value)
    if group is not None:
        return group
    last = name.rpartition(".")[2]
    if re.fullmatch(r"callbacks\.\w+", name) and value.lower() in OFF:
        return f"{key}=null"
    if value.startswith("=") and last not in TEXT_OPTIONS:
        fail(f"{key}={value}: write one =, {key}{value}")
    if last in AXIS_OPTIONS and re.fullmatch("[XYZ]", value):
        return f"{key}={value.lower()}"
    if last not in TEXT_OPTIONS and value in YAML_BOOLEANS:
        return f"{key}={YAML_BOOLEANS[value]}"
    if last in TEXT_OPTIONS and value in ("None", "none") and not Path(value).exists():
        return f"{key}=null"
    return f"{key}={_normalize_value(name, value, last in TEXT_OPTIONS, is_multirun)}"


def _normalize_group(name: str, value: str) -> str | None:
    """Return the option for a config group that is switched off, None for other options."""
    folder = Path(conf_dir()) / name
    if "." in name or not folder.is_dir() or value.lower() not in OFF:
        return None
    if (folder / "none.yaml").is_file():
        return f"{name}=none"
    if name == "scheduler":
        return "task.scheduler=null"  # a constant rate, whatever the experiment sets
    if name in OPTIONAL_GROUPS:
        return f"~{name}"
    hint = "switch off one of them with callbacks.<name>=null, " if name == "callbacks" else ""
    choices = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    return fail(f"{name}={value}: is needed: {hint}choose among {choices}")


def _normalize_value(name: str, value: str, is_text: bool, is_multirun: bool) -> str:
    """Quote a value that Hydra cannot read, and each value of a sweep in a multirun."""
    if value in ("", "null", "???") or _is_quoted(value):
        return _expand_home(value)
    if is_text and (not is_multirun or Path(value).expanduser().exists()):
        is_list = value[0] == "[" and value[-1] == "]" and not Path(value).exists()
        return _quote_list(value) if is_list else _quote_text(value)
    if is_multirun and not is_text and _can_parse(value):
        return value
    if is_multirun and not re.match(r"[\[{(]|\w+\(", value):
        quote = _quote_text if is_text else _quote_unreadable
        return ",".join(quote(part.strip()) for part in value.split(","))
    if not is_multirun and value[0] not in "[{" and _is_sweep(value):
        _refuse_sweep(name, value)
    return _quote_list(value) if value[0] == "[" and value[-1] == "]" else _quote_unreadable(value)


def _refuse_sweep(name: str, value: str) -> NoReturn:
    decimal = value.replace(",", ".")
    is_decimal = re.fullmatch(r"\d+\.\d+", decimal) and name not in ("seed", "data.fold")
    hint = f", a number with a point as {name}={decimal}" if is_decimal else ""
    fail(
        f"{name}={value}: to run once for each value, add -m; write a list as "
        f"{name}=[{value}]{hint}"
    )


def _is_quoted(value: str) -> bool:
    return value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1


def _can_parse(value: str) -> bool:
    return _parse(value) is not None


def _is_sweep(value: str) -> bool:
    parsed = _parse(value)
    return parsed is not None and parsed.is_sweep_override()


def _parse(value: str) -> "Override | None":
    """Parse a value by Hydra's grammar; return None if the grammar does not accept it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"x={value}")
    except HydraException:
        return None


def _quote_unreadable(value: str) -> str:
    return _quote_text(value) if value.startswith("~/") or not _can_parse(value) else value


def _quote_list(value: str) -> str:
    """Quote the elements of a flat list that Hydra cannot read."""
    value = re.sub(r"(^\[|,)\s*~/", lambda match: f"{match[1]}{os.path.expanduser('~')}/", value)
    if _can_parse(value):
        return value
    parts = [part.strip() for part in value[1:-1].split(",")]
    return f"[{','.join(part if _is_quoted(part) else _quote_text(part) for part in parts)}]"


def _expand_home(value: str) -> str:
    """Replace `~/` at the start of a quoted value."""
    home = os.path.expanduser("~")
    return re.sub(r"^(['\"])~(?=/|\1)", lambda match: match[1] + home, value)


def _quote_text(text: str) -> str:
    """Quote a text if Hydra would read it as something else; interpolations remain."""
    if text in ("null", "???", "") or _is_quoted(text):
        return _expand_home(text)
    if re.match(r"~\w*($|/)", text):
        text = os.path.expanduser(text)
    parsed = _parse(text)
    is_same = parsed is not None and not parsed.is_sweep_override() and parsed.value() == text
    return text if is_same else _escape_quotes(text)


def _escape_quotes(text: str) -> str:
    # Within quotes, backslashes escape only when they are followed by a quote or end the text.
    text = re.sub(r"(\\*)(\"|$)", lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text)
    return f'"{text}"'


def quote_override(override: str, name: str) -> str:
    """Quote the text of an override `name=<text>`, so that Hydra keeps commas and brackets."""
    key, equals, text = override.partition("=")
    is_unquoted = bool(equals) and key == name and text[:1] not in ("'", '"', "")
    if not is_unquoted or text in ("null", "???"):
        return override
    return f"{key}={_escape_quotes(text)}"
