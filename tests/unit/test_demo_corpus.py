from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from types import ModuleType
from typing import Any

import pytest

from esvector.demo import MAX_CHARACTERS, python_docs
from esvector.index.documents import prepare
from esvector.types import Document, Record

FORBIDDEN = [
    "antigravity",
    "this",
    "idlelib",
    "turtle",
    "turtledemo",
    "tkinter",
    "test",
    "lib2to3",
    "msilib",
    "ensurepip",
]
FORBIDDEN += ["venv", "pip", "readline", "curses"]

CODE = f"""
import hashlib, json, sys
from esvector.demo import python_docs
docs = list(python_docs())
loaded = sorted(set({FORBIDDEN}) & set(sys.modules))
print(json.dumps([hashlib.sha256(json.dumps(docs).encode()).hexdigest(), len(docs), loaded]))
"""


@pytest.fixture(scope="module")
def docs() -> dict[str, dict[str, Any]]:
    found = list(python_docs())
    by_id = {doc["id"]: doc for doc in found}
    assert len(by_id) == len(found)
    return by_id


def run(seed: str) -> tuple[str, int, list[str]]:
    # Warnings as errors: what the imports warn of must not reach the caller.
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True)
    assert done.stderr == ""
    digest, count, loaded = json.loads(done.stdout)
    return digest, count, loaded


def test_the_same_in_every_process_and_nothing_forbidden_or_printed() -> None:
    first, second = run("1"), run("2")
    assert first == second
    assert 2_000 <= first[1] <= 3_000
    assert first[2] == []


def test_known_entries(docs: dict[str, dict[str, Any]]) -> None:
    doc = docs["json.dumps"]
    assert (doc["name"], doc["module"], doc["kind"], doc["title"]) == ("dumps", "json", "function", "json.dumps")
    assert doc["signature"].startswith("dumps(obj, *, skipkeys=False")
    assert doc["summary"] == "Serialize ``obj`` to a JSON formatted ``str``."
    assert doc["text"].startswith(doc["summary"])
    assert doc["length"] > len(doc["text"])
    kinds = {
        "collections.Counter.most_common": "method",
        "pathlib.Path": "class",
        "os.path.join": "function",
        "os.listdir": "function",
        "str.split": "method",
        "open": "function",
        "asyncio.sleep": "function",
        "collections.abc.Mapping": "class",
        "math.sqrt": "function",
        "heapq": "module",
        "KeyboardInterrupt": "exception",
        "OSError": "exception",
        "subprocess.CalledProcessError": "exception",
    }
    assert {name: docs[name]["kind"] for name in kinds} == kinds
    assert docs["open"]["module"] == "builtins"


def test_aliases_are_left_out(docs: dict[str, dict[str, Any]]) -> None:
    assert not {"EnvironmentError", "IOError", "socket.timeout", "os.error"} & set(docs)


def test_a_module_that_warns_when_imported_is_not_lost(
    docs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> ModuleType:
        warnings.warn(f"{name} will go", DeprecationWarning, stacklevel=2)
        return sys.modules[name]

    monkeypatch.setattr("esvector.demo.MODULES", ("json", "heapq"))
    monkeypatch.setattr("esvector.demo.importlib.import_module", load)
    assert {"json.dumps", "heapq.nlargest"} <= {doc["id"] for doc in python_docs()}


def test_every_entry_is_a_good_document(docs: dict[str, dict[str, Any]]) -> None:
    for doc in docs.values():
        found = prepare(Record(doc, doc["id"]), reserved=frozenset({"vector"}))
        assert isinstance(found, Document)
        assert found.id == doc["id"]
        assert len(doc["text"]) <= MAX_CHARACTERS
        assert doc["length"] >= len(doc["text"]) >= 28
        assert "\n" not in doc["summary"] != ""
        assert " at 0x" not in doc.get("signature", "")
    assert list(docs) == sorted(docs)


def test_each_text_once(docs: dict[str, dict[str, Any]]) -> None:
    digests = {
        hashlib.sha256(doc["text"].encode()).digest() for doc in docs.values() if doc["length"] <= MAX_CHARACTERS
    }
    assert len(digests) == sum(doc["length"] <= MAX_CHARACTERS for doc in docs.values())
    assert "bytearray.expandtabs" not in docs


def test_it_is_quick_and_leaves_the_filters_of_warnings() -> None:
    before = list(warnings.filters)
    start = time.perf_counter()
    next(python_docs())
    assert time.perf_counter() - start < 3
    assert list(warnings.filters) == before
