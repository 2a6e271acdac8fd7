"""Pages of the documentation: links, paths and names exist, lines are short, the English is plain."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

LONGEST = 120
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_IMPORT = re.compile(r"^from (sfa_hf[\w.]*) import (.+?)(?:\s+#.*)?$", re.MULTILINE)
_WRITTEN_BY_THE_READER = {
    "sfa_hf/methods/soup.py",
    "sfa_hf/rules/nlerp.py",
    "sfa_hf/shards/stores/fp8.py",
}
_UNITS = (
    "seconds|minutes|steps|rows|tokens|bytes|bits|nats|MiB|numbers|entries|points|files|models|seeds|merges|runs|"
    "(?:one|a) (?:mapping|file|line|point|entry|pass|number|process)"
)
_PER = (
    "second|step|row|token|byte|merge|rank|process|weight|parameter|task|seed|method|prompt|tensor|stage|run|GPU|"
    "choice|key"
)
PHRASES = (
    rf"\b(?:{_UNITS}) an? (?:{_PER})\b",  # "seconds a step": seconds per step
    r"\b(?:un)?weighed\b",  # weighted
    r"\bat (?:its|the) begin\b",  # at the start
    r"\bbeginnings?\b",  # start
)


def is_page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The page's lines outside code, each with its number."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, line


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    headings = [line.lstrip("#").strip() for _, line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=is_page)
def test_every_relative_link_and_its_anchor_exist(page: Path) -> None:
    targets = [link for _, line in prose(page) for link in _LINK.findall(line) if "://" not in link]
    for target in targets:
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=is_page)
def test_every_path_in_the_package_exists(page: Path) -> None:
    named = set(re.findall(r"\bsfa_hf/[\w./-]*\w", page.read_text())) - _WRITTEN_BY_THE_READER
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=is_page)
def test_every_imported_name_exists(page: Path) -> None:
    for module, names in _IMPORT.findall(page.read_text()):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=is_page)
def test_lines_are_short(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), 1)
    long = [(n, line) for n, line in lines if len(line) > LONGEST and not line.startswith("|")]
    assert not [(n, line) for n, line in long if len(_LINK.sub("", line)) > LONGEST]


@pytest.mark.parametrize("page", PAGES, ids=is_page)
def test_the_english_is_plain(page: Path) -> None:
    # the help of TrainingArguments is in the words of transformers
    text = [(n, line) for n, line in prose(page) if not line.startswith("| training.")]
    assert not [(n, found[0]) for n, line in text for phrase in PHRASES if (found := re.search(phrase, line))]


def test_every_page_is_listed_in_the_index() -> None:
    index = DOCS / "index.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
    assert {page for page in PAGES if page not in (index, ROOT / "README.md")} <= listed
