"""What the documents say of the code and of each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.generate import REFERENCE, pages

from redkeep.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(text: str) -> Iterator[str]:
    """Targets of a document's links within this repository."""
    found = _LINK.findall(_FENCED.sub("", text))
    return (target for target in found if "://" not in target and not target.startswith("mailto:"))


def anchors(text: str) -> set[str]:
    """What may stand behind `#`, as code hosts make it of headings."""
    titles = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("name", ["api.md", "openapi.json", "settings.md", "cli.md"])
def test_the_reference_says_what_the_code_says(made: dict[str, str], name: str) -> None:
    assert (REFERENCE / name).read_text() == made[name], "run ./run docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_points_to_something(document: Path) -> None:
    for target in links(document.read_text()):
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_verb_that_is_mentioned_exists(document: Path) -> None:
    script = (ROOT / "run").read_text().partition("case $verb in")[2]
    verbs = {verb for line in re.findall(r"^  ([a-z| -]+)\) ", script, re.MULTILINE) for verb in line.split(" | ")}
    text = document.read_text()

    assert set(re.findall(r"\./run ([a-z]+)", text)) <= verbs
    assert set(re.findall(r"`redkeep ([a-z]+)", text)) <= set(main.commands)
