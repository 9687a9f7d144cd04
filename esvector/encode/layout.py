"""The modules of a model's folder, side by side, and the fingerprint of the files that each side is made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from esvector.encode.profile import Side
from esvector.errors import EncoderError

__all__ = ["RAW_DPR", "Layout", "ModuleRef", "read_json", "read_layout"]

RAW_DPR = "dpr"
"""Type of the one module of a folder that transformers wrote for a DPR encoder, without sentence-transformers."""

_CONFIG = "config_sentence_transformers.json"
# Facts of a configuration that say who wrote it, or that a profile records as they are in effect.
_NOT_DECIDING = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "dtype",
        "padding",
        "torch_dtype",
        "transformers_version",
        "truncation",
        "use_cache",
    }
)
# Of what is otherwise in the profile, or about the library that wrote it, what changes the tokens of a text.
_DECIDING = {
    "sentence_bert_config.json": frozenset({"do_lower_case"}),
    "tokenizer_config.json": frozenset(
        {"do_lower_case", "split_special_tokens", "strip_accents", "tokenize_chinese_chars", "truncation_side"}
    ),
}
# Read where there is no tokenizer.json.
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "*.model")
# Their configurations are spelled differently by version, and what they say is in the profile.
_PROFILED = frozenset({"Pooling", "Normalize"})
_DAMAGED = "the model's folder is damaged: get it again"


@dataclass(frozen=True, slots=True)
class ModuleRef:
    """One module: its class as sentence-transformers writes it, and its folder below the model's."""

    type: str
    folder: str

    @property
    def name(self) -> str:
        """The class without its package, which has moved between versions."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a folder says of itself. ``routes`` has the modules of each side of a Router, in order."""

    path: Path
    modules: tuple[ModuleRef, ...]
    routes: dict[Side, tuple[ModuleRef, ...]] | None
    prompts: dict[str, str]
    similarity: str | None
    truncate_dim: int | None
    config: dict[str, Any]

    def side(self, side: Side) -> tuple[ModuleRef, ...]:
        """Modules that a text of ``side`` passes through."""
        return self.routes[side] if self.routes is not None else self.modules

    def fingerprint(self, side: Side) -> str:
        """Return the sha256 (hex) of all files that decide a vector of ``side``.

        Equal on two machines, whatever the folder, the versions of the libraries, or the models around it.
        """
        total = hashlib.sha256()
        for ref in self.side(side):
            total.update(ref.name.encode())
            for file in _deciding_files(self.path / ref.folder, ref.name):
                total.update(file.name.encode())
                total.update(_digest(file))
        return total.hexdigest()


def read_layout(path: Path) -> Layout:
    """Read the folder of a model. Raises EncoderError when its modules are not stated, or a Router lacks a side."""
    config = read_json(path / _CONFIG) or {}
    listed = read_json(path / "modules.json")
    model_config = read_json(path / "config.json") or {}
    if listed is None:
        modules: tuple[ModuleRef, ...] = (_raw_dpr(path, model_config),)
        config = {"similarity_fn_name": "dot"}
    else:
        modules = _listed(path, listed)
    return Layout(
        path=path,
        modules=modules,
        routes=_routes(path, modules),
        prompts={name: text for name, text in (config.get("prompts") or {}).items() if text},
        similarity=config.get("similarity_fn_name"),
        truncate_dim=config.get("truncate_dim"),
        config=model_config,
    )


def _listed(path: Path, entries: Any) -> tuple[ModuleRef, ...]:  # noqa: ANN401
    try:
        modules = tuple(ModuleRef(str(entry["type"]), str(entry["path"])) for entry in entries)
    except (KeyError, TypeError):
        modules = ()
    if not modules:
        raise EncoderError(f"{path}/modules.json is not a list of modules with a type and a path each", _DAMAGED)
    return modules


def _raw_dpr(path: Path, config: dict[str, Any]) -> ModuleRef:
    if config.get("model_type") == "dpr":
        return ModuleRef(RAW_DPR, "")
    raise EncoderError(
        f"{path} has no modules.json, so how its token embeddings become one vector would be a guess",
        "use a model saved by sentence-transformers (SentenceTransformer.save_pretrained)",
    )


def _routes(path: Path, modules: tuple[ModuleRef, ...]) -> dict[Side, tuple[ModuleRef, ...]] | None:
    if modules[0].name not in ("Router", "Asym"):
        return None
    folder = modules[0].folder
    config = read_json(path / folder / "router_config.json") or read_json(path / folder / "config.json") or {}
    structure, types = config.get("structure", {}), config.get("types", {})
    mapped = (config.get("parameters") or {}).get("route_mappings") or {}
    routes: dict[Side, tuple[ModuleRef, ...]] = {}
    for side in ("query", "document"):
        route = _route(side, structure, mapped)
        if route is None:
            raise EncoderError(
                f"the router of {path} has the routes {', '.join(structure) or '(none)'}, but none for a {side}",
                "save it with routes called 'query' and 'document' (Router.for_query_document)",
            )
        try:
            inner = [ModuleRef(types[name], f"{folder}/{name}" if folder else name) for name in structure[route]]
        except KeyError as error:
            raise EncoderError(f"the router of {path} does not say what {error} is", _DAMAGED) from error
        routes[side] = (*inner, *modules[1:])
    return routes


def _route(side: str, structure: dict[str, Any], mapped: dict[str, str]) -> str | None:
    """The route of ``side``, in the order of sentence-transformers: task and modality, task alone, modality alone."""
    for key in (f"('{side}', 'text')", f"('{side}', None)", "(None, 'text')", "(None, None)"):
        if key in mapped:
            return mapped[key]
    return side if side in structure else None


def _deciding_files(folder: Path, module: str) -> list[Path]:
    patterns = ["*.safetensors", "tokenizer.json", *_DECIDING]
    if module not in _PROFILED:
        patterns.append("config.json")
    if not (folder / "tokenizer.json").is_file():
        patterns += _VOCABULARIES
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def _digest(file: Path) -> bytes:
    if file.suffix == ".json" and isinstance(facts := read_json(file), dict):
        names = _DECIDING.get(file.name, facts.keys() - _NOT_DECIDING)
        deciding = {name: facts[name] for name in names if name in facts}
        return hashlib.sha256(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS)).digest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a file of a model; None where there is none. Raises EncoderError where it is not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}", _DAMAGED) from error
