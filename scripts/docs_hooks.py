"""MkDocs hooks: generate pages from README, tutorials and API, and resolve links outside docs/."""

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
    """Turn a script into a page: comments that start a line become text, all else code."""
    title, *blocks = re.split(r"\n{2,}(?=# |\S)", script.strip())
    heading = title.strip('"').rstrip(".")
    page = [f"# {heading}", f"A script, run by the tests: [{name}]({name})."]
    code: list[str] = []
    for block in blocks:
        text, block_code = _split_comment(block)
        if text:
            page += [*_fence_code(code), text]
            code = []
        code += [block_code] if block_code else []
    return "\n\n".join([*page, *_fence_code(code)]) + "\n"


def _split_comment(block: str) -> tuple[str, str]:
    lines = block.split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = "\n".join(line.removeprefix("#").strip() for line in lines[:count])
    return text, "\n".join(lines[count:])


def _fence_code(code: list[str]) -> list[str]:
    return ["```python\n" + "\n\n".join(code) + "\n```"] if code else []


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Resolve links to tutorials and README; link files outside docs/ to the repository."""
    page_folder = posixpath.dirname(page.file.src_uri)

    def resolve_link(link: re.Match[str]) -> str:
        label, (path, hash_, anchor) = link[1], link[2].partition("#")
        if path.startswith("http") or not path:
            return link[0]
        target = posixpath.normpath(posixpath.join("docs", page_folder, path))
        script = f"docs/{page.file.src_uri.removesuffix('.md')}.py"  # linked on a tutorial's page
        if target.startswith("docs/tutorials/") and target != script:
            return f"{label}({path.removesuffix('.py')}.md)"
        if target == "README.md":
            return f"{label}({posixpath.relpath('index.md', page_folder or '.')}{hash_}{anchor})"
        if target.startswith("docs/") and (ROOT / target).is_dir():
            index = f"{path.rstrip('/')}/README.md"
            return f"{label}({index})" if (ROOT / target / "README.md").is_file() else label[1:-1]
        if target.startswith("docs/"):
            return link[0]
        if url := config["repo_url"]:
            return f"{label}({url.rstrip('/')}/blob/main/{target}{hash_}{anchor})"
        return label[1:-1]

    parts = FENCE.split(markdown)
    return "".join(p if p.startswith("```") else LINK.sub(resolve_link, p) for p in parts)
