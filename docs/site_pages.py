"""A hook of MkDocs that adds the pages outside docs/ to the site, and adapts links between files.

All pages are written for readers of the repository: links are relative to their files there. The
site also contains the README, the changelog and the measured results. Links to files that are not
part of it become plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: The page of each file of the repository that is outside docs/ or has another name on the site.
RENAMED = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
MEASURED = "results/measured"
#: A link or an image in Markdown.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
#: A fenced block of code.
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def page_of(file: str) -> str:
    """Return the name on the site of a file of the repository, or an empty string."""
    if file in RENAMED:
        return RENAMED[file]
    if file.startswith(f"{MEASURED}/"):
        inside = "measured/" + file.removeprefix(f"{MEASURED}/")
        if file.endswith((".md", ".png")):
            return inside.replace("README.md", "index.md")
        return ""
    return file.removeprefix("docs/") if file.startswith("docs/") else ""


def file_of(page: str) -> str:
    """Return the file of the repository from which a page is made."""
    for file, name in RENAMED.items():
        if name == page:
            return file
    if page.startswith("measured/"):
        return f"{MEASURED}/" + page.removeprefix("measured/").replace("index.md", "README.md")
    return f"docs/{page}"


def on_config(config: Any) -> Any:
    """Put a page for each measured sweep after the overview of the results."""
    (results,) = (section["Results"] for section in config["nav"] if "Results" in section)
    for readme in sorted((ROOT / MEASURED).glob("*/README.md"), reverse=True):
        title = readme.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        results.insert(1, {title: page_of(readme.relative_to(ROOT).as_posix())})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and figures outside docs/."""
    added = list(RENAMED)
    for path in sorted((ROOT / MEASURED).rglob("*")):
        if path.suffix in (".md", ".png"):
            added.append(path.relative_to(ROOT).as_posix())
    for file in added:
        files.append(File.generated(config, page_of(file), abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links point to pages of the site."""
    here = page.file.src_uri
    if here == "index.md":
        page.meta["hide"] = ["navigation"]  # the home page has no pages beside it
    parts = FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda found: _link(found, here), part)
        for part in parts
    )


def _link(found: re.Match[str], here: str) -> str:
    """Return a link for the site instead of one for the repository."""
    image, text, target = found.groups()
    name, hash_sign, anchor = target.partition("#")
    if not name or "://" in name:
        return found[0]
    file = posixpath.normpath(posixpath.join(posixpath.dirname(file_of(here)), name))
    if not (ROOT / file).exists():
        return found[0]
    page = page_of(file)
    if not page:
        return text
    relative = posixpath.relpath(page, posixpath.dirname(here))
    return f"{image}[{text}]({relative}{hash_sign}{anchor})"
