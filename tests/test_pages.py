"""The README and the other pages: their links, their list, and the table of the README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "results" / "measured"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(MEASURED.rglob("*.md")),
]


def without_code(page: Path) -> str:
    """The text of a page without blocks of code and code in lines."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page have on GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^()\s]+)\)", without_code(page)):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page if not name else (page.parent / name).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_list_of_pages_and_on_the_site() -> None:
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")}
    contents = (ROOT / "docs" / "README.md").read_text("utf-8")
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages.remove("README.md")
    assert pages == set(re.findall(r"\]\(([\w]+\.(?:md|ipynb))\)", contents))
    assert pages <= set(re.findall(r": ([\w]+\.(?:md|ipynb))$", site, flags=re.MULTILINE))


def test_every_measured_sweep_begins_with_what_was_found() -> None:
    overview = (MEASURED / "README.md").read_text("utf-8")
    for folder in sorted(path for path in MEASURED.iterdir() if path.is_dir()):
        text = (folder / "README.md").read_text("utf-8")
        assert text.index("**Found**") < text.index("![") < text.index("\n|"), folder.name
        assert f"({folder.name}/README.md)" in overview


def test_the_readme_has_the_table_that_was_measured() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    measured = (MEASURED / "quickstart" / "tables.md").read_text("utf-8")
    found = re.search(r"^\| method \|(?:.+\n)+", measured, flags=re.MULTILINE)
    assert found is not None
    rows = found[0].splitlines()
    assert len(rows) == 2 + 7
    assert [row for row in rows if row not in readme] == []


def test_the_readme_is_short_and_folds_what_is_long() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("<details") == text.count("</details>") == text.count("<summary>") == 2
    unfolded = re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)
    assert len(unfolded.splitlines()) <= 90
    for part in ("DomainBed", "pip install", "@software", "LICENSE", "adding_an_algorithm.md"):
        assert part in unfolded, part


def test_the_terms_of_the_readme_are_explained_before_its_first_table() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("\n|")[0]
    for term in ("biased", "unbiased", "deceiving", "gap", "group", "environments", "needs"):
        assert f"*{term}*" in text, term


def test_the_citation_of_the_readme_is_that_of_the_citation_file() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (entry,) = re.findall(r"```bibtex\n(@software\{.+?\})\n```", readme, flags=re.DOTALL)
    fields = dict(re.findall(r"(\w+) = \{(.*?)\}(?=[,}])", entry))
    plain = {name: value.replace("{", "").replace("}", "") for name, value in fields.items()}
    cff = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f'title: "{plain["title"]}"' in cff
    assert f"version: {plain['version']}\n" in cff and f"name: {plain['author']}\n" in cff
    assert f"(c) {plain['year']} " in (ROOT / "LICENSE").read_text("utf-8")


def test_the_tour_has_its_outputs_and_is_small() -> None:
    path = ROOT / "docs" / "tour.ipynb"
    assert path.stat().st_size < 1_000_000
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not any(output["output_type"] == "error" for output in outputs)
