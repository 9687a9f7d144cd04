from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

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


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(esvector.__path__, "esvector."):
        if found.name != "esvector.__main__":
            yield importlib.import_module(found.name)


def functions(holder: Any, module: ModuleType, seen: set[int]) -> Iterator[Any]:
    """What can be called in a module, classes and what they define included."""
    for value in vars(holder).values():
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if getattr(inner, "__module__", None) != module.__name__ or id(inner) in seen:
            continue
        seen.add(id(inner))
        if callable(inner):
            yield inner
        if inspect.isclass(inner):
            yield from functions(inner, module, seen)


def test_no_default_argument_holds_the_environment() -> None:
    count = 0
    for module in modules():
        for function in functions(module, module, set()):
            try:
                parameters = inspect.signature(function).parameters.values()
            except (ValueError, TypeError):  # one of a kind without a signature, such as a protocol
                continue
            count += 1
            for parameter in parameters:
                assert parameter.default is not os.environ, function
                assert not (isinstance(parameter.default, Mapping) and parameter.default), function
    assert count > 1000


def test_help_and_repr_show_nothing_of_the_environment() -> None:
    code = """
import importlib, inspect, pkgutil, pydoc, warnings
import esvector

shown = [pydoc.render_doc(getattr(esvector, name)) for name in esvector.__all__]
for found in pkgutil.walk_packages(esvector.__path__, "esvector."):
    if found.name != "esvector.__main__":
        module = importlib.import_module(found.name)
        shown.append(pydoc.render_doc(module))
        shown += [repr(value) for value in vars(module).values() if not inspect.ismodule(value)]
with esvector.connect() as client:
    shown += [repr(client), repr(client.transport), repr(vars(client.transport)), repr(esvector.Searcher(client, "a"))]
    shown.append(repr(client.credentials))
text = "\\n".join(shown)
print(len(text), "cAnArY" in text)
"""
    secrets = {"ESVECTOR_PASSWORD": "cAnArY-1", "ANOTHER_SECRET": "cAnArY-2", "HF_TOKEN": "hf_cAnArY"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | secrets,
        capture_output=True,
        text=True,
        check=True,
    )
    length, leaks = done.stdout.split()
    assert int(length) > 100_000
    assert leaks == "False"
