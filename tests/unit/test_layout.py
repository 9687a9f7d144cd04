"""What a model's folder says of itself, and the fingerprint of the files that decide its vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esvector.encode.layout import RAW_DPR, read_layout
from esvector.encode.profile import Side
from esvector.errors import EncoderError
from tests.support import models

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "symmetric": models.symmetric,
    "instructor": models.instructor,
    "router": models.router,
    "router_deep": models.router_deep,
    "dpr": models.dpr_pair,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layout")
    return {name: build(root / name) for name, build in BUILDERS.items()}


@pytest.fixture
def copy(built: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy to spoil, elsewhere and under another name."""
    return lambda name: Path(shutil.copytree(built[name], tmp_path / "elsewhere"))


def edit(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def fingerprints(folder: Path) -> tuple[str, str]:
    layout = read_layout(folder)
    return layout.fingerprint("query"), layout.fingerprint("document")


# Modules


def test_modules_in_order(built: dict[str, Path]) -> None:
    layout = read_layout(built["instructor"])
    assert [module.name for module in layout.modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert [module.folder for module in layout.modules] == ["", "1_Pooling", "2_Dense", "3_Normalize"]
    assert layout.routes is None
    assert layout.side("query") == layout.side("document") == layout.modules
    assert layout.prompts == models.E5_PROMPTS, "and none that is empty"
    assert (layout.similarity, layout.truncate_dim) == (None, None)


def test_a_router_has_its_modules_by_side_and_what_follows_it(built: dict[str, Path]) -> None:
    layout = read_layout(built["router"])
    assert [module.name for module in layout.side("query")] == ["StaticEmbedding", "Normalize"]
    assert [module.name for module in layout.side("document")] == ["Transformer", "Pooling", "Normalize"]
    assert [module.folder for module in layout.side("document")] == [
        "document_0_Transformer",
        "document_1_Pooling",
        "1_Normalize",
    ]


ROUTES = {"a": ["query_0_Transformer", "query_1_Pooling"], "b": ["document_0_Transformer", "document_1_Pooling"]}


@pytest.mark.parametrize(
    "mappings",
    [
        {"('query', 'text')": "a", "('document', 'text')": "b"},
        {"('query', None)": "a", "('document', None)": "b"},
        {"('query', None)": "a", "(None, 'text')": "b"},
        {"('query', 'text')": "a", "(None, None)": "b", "('query', None)": "b"},
    ],
)
def test_routes_of_other_names_are_found_by_what_they_are_for(
    mappings: dict[str, str], copy: Callable[[str], Path]
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = copy("router_deep")
    edit(folder / "router_config.json", structure=ROUTES, parameters={"route_mappings": mappings})
    routes = {side: read_layout(folder).side(side)[0].folder for side in ("query", "document")}
    assert routes == {"query": "query_0_Transformer", "document": "document_0_Transformer"}
    model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    theirs = {side: model[0]._resolve_route_name(side, "text") for side in routes}
    assert theirs == {"query": "a", "document": "b"}


def test_a_router_of_the_old_name(copy: Callable[[str], Path]) -> None:
    folder = copy("router_deep")
    (folder / "router_config.json").rename(folder / "config.json")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Asym"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert read_layout(folder).side("query")[0].folder == "query_0_Transformer"


def test_a_router_without_a_side_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("router_deep")
    edit(folder / "router_config.json", structure={"query": ROUTES["a"], "image": ROUTES["b"]})
    with pytest.raises(EncoderError, match="has the routes query, image, but none for a document"):
        read_layout(folder)


def test_a_folder_without_modules_would_be_a_guess(copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    (folder / "modules.json").unlink()
    with pytest.raises(EncoderError, match=r"no modules\.json"):
        read_layout(folder)


def test_a_raw_dpr_states_its_pooling_by_its_type(built: dict[str, Path]) -> None:
    layout = read_layout(built["dpr"] / "context")
    assert [module.type for module in layout.modules] == [RAW_DPR]
    assert layout.similarity == "dot"


@pytest.mark.parametrize("name", ["modules.json", "config_sentence_transformers.json", "config.json"])
def test_damaged_files_are_named(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    (folder / name).write_text("{")
    with pytest.raises(EncoderError, match=f"{name} is not JSON"):
        read_layout(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '"x"', '[{"path": ""}]', "[1]", "1"])
def test_a_list_of_modules_that_is_none_is_named(content: str, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    (folder / "modules.json").write_text(content)
    with pytest.raises(EncoderError, match=r"modules\.json"):
        read_layout(folder)


def test_a_router_that_does_not_say_what_its_modules_are(copy: Callable[[str], Path]) -> None:
    folder = copy("router_deep")
    edit(folder / "router_config.json", types={})
    with pytest.raises(EncoderError, match="router"):
        read_layout(folder)


# Fingerprints


@pytest.mark.parametrize("name", ["symmetric", "instructor", "router", "router_deep"])
def test_a_copy_elsewhere_has_the_same_fingerprints(
    name: str, built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    folder = copy(name)
    (folder / "README.md").write_text("another readme")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"another export")
    assert fingerprints(folder) == fingerprints(built[name])


def test_one_tower_has_one_fingerprint_and_two_have_two(built: dict[str, Path]) -> None:
    query, document = fingerprints(built["symmetric"])
    assert query == document
    assert len(query) == 64
    query, document = fingerprints(built["router"])
    assert query != document


NOISE: dict[str, dict[str, Any]] = {
    "config.json": {
        "torch_dtype": "bfloat16",
        "dtype": "float16",
        "transformers_version": "4.0.0",
        "_name_or_path": "/home/someone/model",
        "architectures": ["BertForMaskedLM"],
        "use_cache": True,
    },
    "config_sentence_transformers.json": {
        "__version__": {"sentence_transformers": "2.0.0"},
        "prompts": {"query": "q: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    },
    "tokenizer.json": {"truncation": {"max_length": 8}, "padding": {"strategy": "BatchLongest"}},
    "sentence_bert_config.json": {"max_seq_length": 20},
    "tokenizer_config.json": {"model_max_length": 20, "tokenizer_class": "BertTokenizer"},
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
}


@pytest.mark.parametrize("name", NOISE)
def test_what_a_library_writes_of_itself_or_a_profile_records_is_left_out(
    name: str, built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    folder = copy("symmetric")
    edit(folder / name, **NOISE[name])
    assert fingerprints(folder) == fingerprints(built["symmetric"])


def test_the_order_in_which_a_configuration_is_written_does_not_matter(
    built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    folder = copy("symmetric")
    for name in ("config.json", "tokenizer.json"):
        facts = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(dict(reversed(facts.items())), indent=7))
    assert fingerprints(folder) == fingerprints(built["symmetric"])


DECIDING: dict[str, dict[str, Any]] = {
    "config.json": {"hidden_act": "relu"},
    "tokenizer.json": {"normalizer": None},
    "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Tanh"},
    "sentence_bert_config.json": {"do_lower_case": True},
    "tokenizer_config.json": {"do_lower_case": False},
}


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_a_vector_is_in_the_fingerprint(
    name: str, built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    folder = copy("instructor")
    edit(folder / name, **DECIDING[name])
    assert fingerprints(folder)[0] != fingerprints(built["instructor"])[0]


@pytest.mark.parametrize("weights", ["model.safetensors", "2_Dense/model.safetensors"])
def test_a_changed_weight_is_another_fingerprint(
    weights: str, built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    folder = copy("instructor")
    with (folder / weights).open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    assert fingerprints(folder)[0] != fingerprints(built["instructor"])[0]


def test_a_module_more_or_less_is_another_fingerprint(built: dict[str, Path], copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:-1]))
    assert fingerprints(folder) != fingerprints(built["symmetric"])


def test_the_same_module_under_its_older_name_is_the_same(built: dict[str, Path], copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert fingerprints(folder) == fingerprints(built["symmetric"])


def test_without_a_tokenizer_json_the_vocabulary_decides(copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("a\nb\n")
    first = fingerprints(folder)
    (folder / "vocab.txt").write_text("b\na\n")
    assert fingerprints(folder) != first


@pytest.mark.parametrize(
    ("side", "folder"),
    [("query", "query_0_StaticEmbedding"), ("document", "document_0_Transformer")],
)
def test_the_tower_of_one_side_leaves_the_other_alone(
    side: Side, folder: str, built: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    changed = copy("router")
    models.change_weight(changed / folder)
    before, after = read_layout(built["router"]), read_layout(changed)
    other: Side = "document" if side == "query" else "query"
    assert after.fingerprint(side) != before.fingerprint(side)
    assert after.fingerprint(other) == before.fingerprint(other)


def test_the_two_towers_of_dpr(built: dict[str, Path]) -> None:
    question, context = (read_layout(built["dpr"] / name).fingerprint("query") for name in ("question", "context"))
    assert question != context
