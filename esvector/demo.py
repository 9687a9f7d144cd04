"""A corpus that every machine has: the documentation of the Python standard library, read from the running interpreter.

It is taken from ``MODULES`` by introspection, so that the first search of a new user needs no network and no files.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "python_docs"]

# What programs are written with every day. Left out are modules that do something when they are imported (antigravity,
# this), need a display or a terminal, install things or are deprecated, and families that few look up: codecs, message
# parts, servers, cookies, decimal contexts, system calls, the inside of interpreters, XML interfaces. Together with the
# lengths below this gives about 2,300 records and 110,000 tokens, which two cores encode in half a minute. A module
# that this Python does not have is skipped.
MODULES = tuple(
    """
    builtins
    abc argparse array asyncio atexit base64 bisect bz2 calendar cmath collections collections.abc compression.zstd
    concurrent.futures configparser contextlib contextvars copy csv dataclasses datetime dbm difflib email.utils
    enum fcntl filecmp fileinput fnmatch fractions functools gc getpass gettext glob graphlib gzip
    hashlib heapq hmac html html.parser http http.client importlib io ipaddress
    itertools json keyword logging lzma math mimetypes multiprocessing multiprocessing.pool
    multiprocessing.shared_memory numbers operator os os.path pathlib pickle pprint queue random re
    reprlib sched secrets selectors shelve shlex shutil signal socket sqlite3 ssl statistics string
    string.templatelib struct subprocess sys tempfile textwrap threading time timeit tomllib traceback
    types typing unicodedata unittest urllib.error urllib.parse urllib.request urllib.robotparser
    uuid warnings weakref webbrowser xml.sax.saxutils zipfile zlib zoneinfo
    """.split()  # noqa: SIM905  (a list would take a line for each)
)

# "Return the square root of x." says something; what is as short for a method mostly repeats its name.
MIN_CHARACTERS = 28
MIN_METHOD_CHARACTERS = 50
MAX_CHARACTERS = 400

Doc = dict[str, Any]


def python_docs() -> Iterator[Doc]:
    """The documentation of public modules, classes, functions and methods, one record each, sorted by id.

    ``id`` (qualified name, without ``builtins``), ``name``, ``module``, ``kind`` (module, class, exception, function,
    method or property), ``signature`` (absent where unknown), ``title`` (the id), ``summary`` (first line), ``text``
    (the first 400 characters of the docstring, to the end of a paragraph or sentence), ``length`` (characters of the
    whole docstring) and ``deprecated``. Docstrings too short to say something are left out; of objects with the same
    docstring the one with the shortest name is kept. The same Python gives the same records.
    """
    found: dict[str, Doc] = {}
    # The records are made before the first is given out: filters set around a yield would reach the caller.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for doc in _all_docs():
            text = doc.pop("docstring")
            rival = found.get(text)
            if rival is None or (len(doc["id"]), doc["id"]) < (len(rival["id"]), rival["id"]):
                found[text] = doc
    yield from sorted(found.values(), key=lambda doc: doc["id"])


def _all_docs() -> Iterator[Doc]:
    modules = _modules()
    seen: set[int] = set()
    for listed, module in modules.items():
        yield from _doc(module, listed, "module", listed)
        for name, value in _members(listed, module, modules):
            if id(value) not in seen:
                seen.add(id(value))
                yield from _member_docs(value, name, listed)


def _modules() -> dict[str, ModuleType]:
    modules = {}
    for name in MODULES:
        try:
            modules[name] = importlib.import_module(name)
        except Exception:  # noqa: S112  (whatever a module of another platform or build raises, it has no documents)
            continue
    return modules


def _members(listed: str, module: ModuleType, modules: dict[str, ModuleType]) -> Iterator[tuple[str, Any]]:
    """Public classes and functions that are at home in a module, under their own name before any other."""
    public = getattr(module, "__all__", None)
    names = [name for name in public or vars(module) if not name.startswith("_")]
    found = [(name, value) for name in names if _is_documented(value := getattr(module, name, None))]
    for name, value in sorted(found, key=lambda pair: (pair[0] != getattr(pair[1], "__name__", None), pair[0])):
        home = _home(value, modules)
        # What a module without __all__ has imported looks like its own; what comes from a private module is.
        if home == listed or listed == "builtins" or (home is None and public is not None):
            yield name, value


def _is_documented(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _home(value: object, modules: dict[str, ModuleType]) -> str | None:
    """The listed module that something comes from: ``asyncio`` for ``asyncio.tasks``, ``csv`` for ``_csv``."""
    parts = str(getattr(value, "__module__", None)).lstrip("_").split(".")
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts) or None


def _member_docs(value: Any, name: str, listed: str) -> Iterator[Doc]:  # noqa: ANN401
    qualified = name if listed == "builtins" else f"{listed}.{name}"
    if not inspect.isclass(value):
        yield from _doc(value, qualified, "function", listed)
        return
    yield from _doc(value, qualified, "exception" if issubclass(value, BaseException) else "class", listed)
    for attribute, member in sorted(vars(value).items()):
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if attribute.startswith("_"):
            continue
        if isinstance(function, property):
            yield from _doc(function, f"{qualified}.{attribute}", "property", listed)
        elif inspect.isroutine(function):
            yield from _doc(function, f"{qualified}.{attribute}", "method", listed)


def _doc(value: object, qualified: str, kind: str, module: str) -> Iterator[Doc]:
    docstring = _docstring(value)
    # A dataclass or named tuple without a docstring gets its own signature as one.
    shortest = MIN_METHOD_CHARACTERS if kind in ("method", "property") else MIN_CHARACTERS
    if len(docstring) < shortest or re.fullmatch(r"\w+\(.*\)", docstring):
        return
    name = qualified.rpartition(".")[2]
    doc: Doc = {"id": qualified, "name": name, "module": module, "kind": kind}
    if signature := _signature(value):
        doc["signature"] = name + signature
    lines = [line for line in docstring.splitlines() if line.strip() and not line.startswith(f"{name}(")]
    yield {
        **doc,
        "title": qualified,
        "summary": lines[0].strip() if lines else docstring.splitlines()[0],
        "text": _beginning(docstring),
        "length": len(docstring),
        "deprecated": hasattr(value, "__deprecated__") or _DEPRECATED.search(docstring) is not None,
        "docstring": docstring,
    }


_DEPRECATED = re.compile(
    r"^\W*deprecated\b|\b(?:is|are|been) (?:now )?deprecated (?:since|and|in|as|use)\b", re.IGNORECASE | re.MULTILINE
)


def _docstring(value: object) -> str:
    """The docstring of the object itself: not that of its class, nor one inherited."""
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    return inspect.cleandoc(docstring).strip() if isinstance(docstring, str) else ""


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
    except Exception:  # annotations that cannot be evaluated may raise anything
        return ""
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=parameter.default if _is_literal(parameter.default) else _Dots(),
        )
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


def _is_literal(default: object) -> bool:
    if type(default) is tuple:
        return all(map(_is_literal, default))
    return default is inspect.Parameter.empty or type(default) in (str, bytes, int, float, bool, type(None))


class _Dots:
    """In place of a default that is no literal: it would be printed with an address, or as a set in any order."""

    def __repr__(self) -> str:
        return "..."


def _beginning(docstring: str) -> str:
    """Whole paragraphs up to MAX_CHARACTERS; of a longer first one, whole sentences, else whole words."""
    if len(docstring) <= MAX_CHARACTERS:
        return docstring
    kept = docstring[: MAX_CHARACTERS + 1]
    for border, keep in (("\n\n", 0), (". ", 1), (".\n", 1), (" ", 0), ("\n", 0)):
        end = kept.rfind(border)
        if end >= MIN_CHARACTERS:
            return kept[: end + keep].rstrip()
    return kept[:MAX_CHARACTERS]
