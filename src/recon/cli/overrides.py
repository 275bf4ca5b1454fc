"""Write command-line overrides so that Hydra reads them as meant."""

import re


def quote_override(override: str, name: str) -> str:
    """Return an option `name=<text>` so that Hydra takes the text as it is, commas and all."""
    key, equals, text = override.partition("=")
    bare = bool(equals) and key == name and text[:1] not in ("'", '"', "")
    if not bare or text in ("null", "???"):
        return override
    # Within quotes, backslashes escape a quote alone, and those before one.
    text = re.sub(r"(\\*)(\"|$)", lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'{key}="{text}"'
