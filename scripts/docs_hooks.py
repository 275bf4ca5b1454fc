"""MkDocs hooks: generate pages from README, tutorials and API, and resolve links out of docs/."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# Packages with an API page each; single modules are listed on the page of `recon`.
PACKAGES = (
    "ops", "layers", "models", "losses", "teachers", "data", "data.datasets", "data.io",
    "data.prepared", "checkpoints", "tasks", "callbacks", "reports", "cli",
)  # fmt: skip
TOP_LEVEL_MODULES = ("point_encoder", "checkpoints.hub")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for uri, text in build_pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def build_pages() -> dict[str, str]:
    """Return the text of each generated page by its path in the site."""
    readme = (ROOT / "README.md").read_text()
    texts = {"index.md": LINK.sub(lambda link: f"{link[1]}({_relative_to_docs(link[2])})", readme)}
    for script in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        texts[f"tutorials/{script.stem}.md"] = script_to_markdown(script.read_text(), script.name)
    texts["api/recon.md"] = _render_api(
        "recon", ["recon.load", *(f"recon.{name}" for name in TOP_LEVEL_MODULES)]
    )
    for package in PACKAGES:
        modules = sorted((ROOT / "src" / "recon" / package.replace(".", "/")).glob("[a-z]*.py"))
        names = [f"recon.{package}.{module.stem}" for module in modules]
        texts[f"api/{package}.md"] = _render_api(f"recon.{package}", names)
    return texts


def _relative_to_docs(link: str) -> str:
    """Rewrite a link of README for a page in docs/."""
    if link.startswith(("http", "#")):
        return link
    return posixpath.relpath(link, "docs") if not link.startswith("docs/") else link[5:]


def _render_api(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def script_to_markdown(script: str, name: str) -> str:
    """Turn a script into a page: comments at the start of a line become text, the rest code."""
    title, *blocks = re.split(r"\n{2,}(?=# |\S)", script.strip())
    name_of_page = title.strip('"').rstrip(".")
    page = [f"# {name_of_page}", f"A script, run by the tests: [{name}]({name})."]
    code: list[str] = []
    for block in blocks:
        text, rest = _split_comment(block)
        if text:
            page += [*_fence_code(code), text]
            code = []
        code += [rest] if rest else []
    return "\n\n".join([*page, *_fence_code(code)]) + "\n"


def _split_comment(block: str) -> tuple[str, str]:
    lines = block.split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = "\n".join(line.removeprefix("#").strip() for line in lines[:count])
    return text, "\n".join(lines[count:])


def _fence_code(code: list[str]) -> list[str]:
    return ["```python\n" + "\n\n".join(code) + "\n```"] if code else []


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Resolve links to tutorials and README, and links out of docs/ to the repository."""
    here = posixpath.dirname(page.file.src_uri)

    def resolve_link(link: re.Match[str]) -> str:
        label, (path, hash_, anchor) = link[1], link[2].partition("#")
        if path.startswith("http") or not path:
            return link[0]
        place = posixpath.normpath(posixpath.join("docs", here, path))
        own = f"docs/{page.file.src_uri.removesuffix('.md')}.py"  # a tutorial names its script
        if place.startswith("docs/tutorials/") and place != own:
            return f"{label}({path.removesuffix('.py')}.md)"
        if place == "README.md":
            return f"{label}({posixpath.relpath('index.md', here or '.')}{hash_}{anchor})"
        if place.startswith("docs/") and (ROOT / place).is_dir():
            index = f"{path.rstrip('/')}/README.md"
            return f"{label}({index})" if (ROOT / place / "README.md").is_file() else label[1:-1]
        if place.startswith("docs/"):
            return link[0]
        if url := config["repo_url"]:
            return f"{label}({url.rstrip('/')}/blob/main/{place}{hash_}{anchor})"
        return label[1:-1]

    parts = FENCE.split(markdown)
    return "".join(p if p.startswith("```") else LINK.sub(resolve_link, p) for p in parts)
