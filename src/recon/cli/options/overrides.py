"""Quote and convert the values of options, so that Hydra reads them as they are meant."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from recon.cli.errors import fail
from recon.cli.options.config_groups import OFF

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

TEXT_OPTIONS = frozenset(
    (
        "checkpoint",
        "ckpt_path",
        "dir",
        "dirpath",
        "dump_dir",
        "features",
        "files",
        "folder",
        "in",
        "out",
    )
    + ("output_dir", "path", "probe_root", "query", "root", "run", "save_dir")
)
"""Last parts of options whose values are paths or sentences, taken literally."""
AXIS_OPTIONS = frozenset(("up", "target_up", "axis"))
"""Last parts of options whose values are axes, in lower or upper case."""
YAML_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false", "None": "null"}


def normalize_override(key: str, value: str, *, is_multirun: bool) -> str:
    """Return one option with its value quoted or converted where Hydra would read another.

    Exits with one line for several values outside a multirun.
    """
    name = key.lstrip("+~")
    is_multirun = is_multirun and not name.startswith("hydra.")  # these cannot be swept
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
