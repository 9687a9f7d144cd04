from __future__ import annotations

import json
import subprocess
import sys

import pytest

import esvector
from esvector import errors
from esvector.cli.app import _COMMANDS

COMMANDS = [
    [],
    *([name] for name in _COMMANDS),
    *(["node", name] for name in ("start", "stop", "status", "logs", "reset")),
]


def test_every_public_name_is_there_and_knows_its_own_name() -> None:
    for name in esvector.__all__:
        assert getattr(esvector, name).__name__ == name
    assert esvector.__all__ == sorted(esvector.__all__, key=lambda name: (name[0].islower(), name))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = esvector.no_such_name


def test_every_error_is_in_the_tree_that_its_docstring_draws() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        if name != "require":
            assert issubclass(getattr(errors, name), errors.EsvectorError)
            assert name in errors.__doc__


def test_a_missing_extra_is_an_import_error_that_says_what_to_install() -> None:
    with pytest.raises(ImportError, match="no_such_module") as error:
        errors.require("local", "json", "no_such_module")
    assert "pip install 'esvector[local]'" in str(error.value)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "esvector")
def test_help_is_quick_and_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import json, sys, time\n"
        "from esvector.cli import app\n"
        f"app({[*command, '--help']!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'elasticsearch', 'transformers', 'pyarrow', 'rich', 'lark'}\n"
        "print(json.dumps([sorted(heavy & set(sys.modules)), time.process_time()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert "Usage:" in done.stdout
    assert seconds < 0.5  # of CPU: another process may have the cores
    if command and command != ["node"]:
        assert "Example:" in done.stdout
