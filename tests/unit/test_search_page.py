"""Every example of docs/search.md that needs no server."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from esvector.cli.app import app
from esvector.search import duplicates, examples
from esvector.search.fusion import reciprocal_rank
from tests.support import models

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_the_python_of_the_page(number: int) -> None:
    found = blocks("python")
    assert len(found) == 3
    exec(found[number], {})


def test_the_reranker_of_the_page(tmp_path: Path) -> None:
    """With a tiny model in the place of the one from the hub, which reads less."""
    (block,) = blocks("reranker")
    folder = models.cross_encoder(tmp_path / "cross")
    assert '"cross-encoder/ms-marco-MiniLM-L6-v2"' in block
    there: dict[str, object] = {}
    exec(block.replace("cross-encoder/ms-marco-MiniLM-L6-v2", str(folder)).replace("256", "128"), there)
    assert len(there["scores"]) == 2  # type: ignore[arg-type]


def test_the_options_that_the_page_names_exist() -> None:
    said = CliRunner().invoke(app, ["duplicates", "--help"]).output
    section = PAGE.partition("## Near-duplicates")[2]
    for option in re.findall(r"(--[a-z-]+)", section):
        assert option in said, option


def test_the_numbers_of_the_page() -> None:
    assert f"Up to {duplicates._EXACT:,} documents" in PAGE
    assert inspect.signature(reciprocal_rank).parameters["constant"].default == 60
    assert examples._UNLIKE == 0.5
