"""Query towers that were exported once, in a folder by their ``query_id``: what searching without torch reads.

An entry is a folder with the tower (``model.onnx`` or ``table.npy``), ``tokenizer.json`` and ``manifest.json``. It
appears complete, by one rename, or not at all. Importing and reading needs the standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

__all__ = ["LightFacts", "LightFiles", "cache_folder", "discard", "find", "is_intact", "save"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_TOKENIZER = "tokenizer.json"
_TOWER = {"onnx": "model.onnx", "static": "table.npy"}
_TEMPORARY = ".unfinished-"
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class LightFacts:
    """What is needed to use a query tower.

    Attributes:
        query_id: identity of the tower, its prompt included, as the passport of an index names it.
        kind: "onnx" for a graph, "static" for a table of token vectors.
        dims: length of a vector.
        normalize: whether vectors are made unit length.
        max_length: tokens read of a query, special tokens included; None for all.
        special_tokens: whether the tower wants the tokenizer's special tokens.
        pad_id: the id to pad with.
    """

    query_id: str
    kind: Literal["onnx", "static"]
    dims: int
    normalize: bool
    max_length: int | None
    special_tokens: bool
    pad_id: int


@dataclass(frozen=True, slots=True)
class LightFiles:
    """An entry of the cache: its ``folder`` and its ``facts``."""

    folder: Path
    facts: LightFacts

    @property
    def tower(self) -> Path:
        """The graph, or the table of token vectors: (vocabulary, dims) float32."""
        return self.folder / _TOWER[self.facts.kind]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return self.folder / _TOKENIZER


def cache_folder() -> Path:
    """Where query towers are kept unless another folder is given."""
    import platformdirs

    return platformdirs.user_cache_path("esvector") / "queries"


def save(folder: Path, facts: LightFacts, tokenizer_json: str, write: Callable[[Path], None]) -> LightFiles:
    """Add a tower to the cache in ``folder``; ``write`` is given the path to write it to (files beside it may join).

    Where another process was first, its entry stays and this one is dropped. Raises OSError when the folder cannot be
    written, and whatever ``write`` raises; either way nothing is left.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(folder)
    unfinished = Path(mkdtemp(prefix=_TEMPORARY, dir=folder))  # readable by this user only
    try:
        write(unfinished / _TOWER[facts.kind])
        (unfinished / _TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        _seal(unfinished, facts)
        _publish(unfinished, folder, facts.query_id)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return LightFiles(_entry(folder, facts.query_id), facts)


def find(folder: Path, query_id: str) -> LightFiles | None:
    """Look a tower up in the cache in ``folder``; None where it is missing, incomplete or of another format.

    Sizes are compared, contents are not: whoever uses the tower should reproduce known vectors, or ask ``is_intact``.
    """
    entry = _entry(folder, query_id)
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        facts = LightFacts(**manifest["facts"])
        whole = {_TOWER[facts.kind], _TOKENIZER} <= manifest["files"].keys() and all(
            (entry / name).stat().st_size == file["bytes"] for name, file in manifest["files"].items()
        )
        known = manifest["format"] == _FORMAT and facts.query_id == query_id
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return LightFiles(entry, facts) if whole and known else None


def is_intact(files: LightFiles) -> bool:
    """Whether the contents are still those that were saved; reads every byte (0.1 s for 90 MB)."""
    try:
        saved = json.loads((files.folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(_sha256(files.folder / name) == file["sha256"] for name, file in saved.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def discard(folder: Path, query_id: str) -> None:
    """Remove a tower from the cache in ``folder``, if it is there. Whoever has it open keeps it."""
    # Moved away first: a folder that is half removed must not be found.
    grave = Path(mkdtemp(prefix=_TEMPORARY, dir=folder)) if folder.is_dir() else None
    if grave is not None:
        try:
            _entry(folder, query_id).rename(grave)
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(grave, ignore_errors=True)


def _entry(folder: Path, query_id: str) -> Path:
    # Hashed, because an id comes from the mapping of an index and might be any path; with the format, so that two
    # versions of esvector do not replace each other's entries.
    return folder / f"{hashlib.sha256(query_id.encode()).hexdigest()[:40]}-{_FORMAT}"


def _seal(unfinished: Path, facts: LightFacts) -> None:
    """Make the files private, see them onto the disk, and write the manifest that describes them."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(unfinished.iterdir()):
        _settle(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = unfinished / _MANIFEST
    manifest.write_text(json.dumps({"format": _FORMAT, "facts": asdict(facts), "files": files}, indent=1))
    _settle(manifest)


def _settle(path: Path) -> None:
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _publish(unfinished: Path, folder: Path, query_id: str) -> None:
    entry = _entry(folder, query_id)
    while True:
        try:
            unfinished.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            first = find(folder, query_id)
            if first is not None and is_intact(first):
                return
            discard(folder, query_id)
        else:
            return


def _sweep(folder: Path) -> None:
    """Remove what processes that died long ago left unfinished."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            abandoned = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
        except FileNotFoundError:  # its owner is done
            continue
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
