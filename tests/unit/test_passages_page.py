"""What docs/passages.md says; its example runs in tests/server/test_passages.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from esvector.cli.app import app
from esvector.cli.options import read_passages
from esvector.types import PassageOptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "passages.md").read_text(encoding="utf-8")


def test_the_options_that_the_page_names_exist() -> None:
    said = CliRunner().invoke(app, ["index", "--help"]).output
    for option in re.findall(r"(--[a-z-]+)", PAGE):
        assert option in said, option


def test_what_the_page_says_is_stored_is_in_the_mapping() -> None:
    mapping = json.loads((ROOT / "mappings" / "passages.json").read_text())
    nested = mapping["mappings"]["properties"]["passages"]
    for name in ("passages", *nested["properties"]):
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("off", False),
        ("auto", PassageOptions()),
        ("200", PassageOptions(200)),
        ("200:0", PassageOptions(200, 0)),
        ("128:16", PassageOptions(128, 16)),
    ],
)
def test_the_option(said: str, options: PassageOptions | Literal[False]) -> None:
    assert read_passages(said) == options


@pytest.mark.parametrize("said", ["", "papers.jsonl", "200:", ":20", "-5", "200:x", "1.5"])
def test_an_option_that_cannot_be_read(said: str) -> None:
    with pytest.raises(click.BadParameter, match="is not auto, off, TOKENS or TOKENS:OVERLAP"):
        read_passages(said)
