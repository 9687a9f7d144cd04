"""Every example of docs/encoders.md that needs no hub and no server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from esvector.cli.app import app
from esvector.encode.presets import find_preset

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_profile_of_the_page_can_be_stated() -> None:
    (example,) = blocks("python")
    exec(compile(example, "docs/encoders.md", "exec"), {})


@pytest.mark.parametrize("name", re.findall(r'EncoderProfile\("([a-zA-Z-]+/[\w.-]+)"\)', PAGE))
def test_the_models_that_are_named_without_options_are_known(name: str) -> None:
    assert find_preset(name) is not None


def test_the_dual_encoder_that_is_named_finds_its_partner() -> None:
    name = "sentence-transformers/facebook-dpr-ctx_encoder-single-nq-base"
    assert name in PAGE
    preset = find_preset(name)
    assert preset is not None
    assert preset.partner(name) == "sentence-transformers/facebook-dpr-question_encoder-single-nq-base"


@pytest.mark.parametrize("command", re.findall(r"^\$ esvector (models .*)$", PAGE, re.MULTILINE))
def test_the_commands_about_models_run(command: str) -> None:
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output


def test_the_options_that_the_page_names_exist() -> None:
    said = CliRunner().invoke(app, ["index", "--help"]).output
    for option in re.findall(r"`(--[a-z-]+)", PAGE):
        if option not in ("--exact-only", "--no-titles"):
            assert option in said, option
