"""Quote command-line overrides so that Hydra reads their text literally."""

import re


def quote_override(override: str, name: str) -> str:
    """Quote the text of an override `name=<text>`, so that Hydra keeps commas and brackets."""
    key, equals, text = override.partition("=")
    is_unquoted = bool(equals) and key == name and text[:1] not in ("'", '"', "")
    if not is_unquoted or text in ("null", "???"):
        return override
    # Within quotes, backslashes escape only when they are followed by a quote or end the text.
    text = re.sub(r"(\\*)(\"|$)", lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text)
    return f'{key}="{text}"'
