"""Tiny real models on disk, one for each way of making two encoders that people publish; no network.

Every builder saves into a folder and returns it. The same arguments give the same bytes in every weight and tokenizer
file. Weights are drawn wide, biases included, so that texts, prompts, positions and towers all show in the vectors.
"""

from __future__ import annotations

import json
import random
import string
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Module,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

Drawn = TypeVar("Drawn", bound=torch.nn.Module)

DIMS = 32
DENSE_DIMS = 24

E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
INSTRUCT_PROMPTS = {"query": "Instruct: find passages\nQuery: "}

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(
    """
    a about above after again air all also always an and animal answer any apple are around as at away back bank be
    because been before began begin below best better between big bird black blood blue boat body bone book both box
    boy bread bring brown build but by call came can car carry cat cell change child circle city clear climate close
    cloud cold color come cook could count country cow cross cut dark day deep did distance do document dog door down
    draw drink dry each early earth east eat egg eight end engine enough even ever every example eye face fall family
    far farm fast father feed feet few field find fire first fish five flower fly follow food for force form found four
    free friend from full game garden gave get girl give glass go gold good great green ground grow had half hand
    happen hard has have he head hear heart heat heavy help her here high hill him his hold home horse hot hour house
    how hundred i idea if in inch instruct into iron is island it just keep kind king know land language large last
    late laugh lead learn leave left letter life light like line list listen little live long look love machine made
    make man many map mark market may me mean measure metal milk mind moon more morning most mother mountain mouth move
    much music must my name near never new next night north nose not note nothing now number ocean of off often oil old
    on once one only open or order other our out over own page paper part passage passages people pepper person picture
    place plan plant play point poor power problem pull put queen query question quick quiet rain ran reach read red
    rest rice river road rock room round rule run salt same sand saw say school science sea search season second see
    seed sentence set seven several she ship short should show side simple sing sister six sky sleep slow small snow
    so soil some song soon sound south space speak spring stand star start state stay steel still stone stop story
    street strong study such sugar summer sun sure table tail take talk teach tell ten text than that the their them
    then there these they thing think this those though thought thousand three through time to together too top toward
    town train travel tree true try turn two under until up us use vaccine valley verb very voice wait walk wall want
    war warm was watch water way we wear weather week weight well went were west what wheat wheel when where which
    while white who whole why will wind winter with woman wonder wood word work world would write year yellow yes yet
    you young your
    """.split()  # noqa: SIM905
)
SUFFIXES = ("s", "es", "ed", "er", "ing", "ly", "ness", "tion")


def vocabulary(variant: int = 0) -> list[str]:
    """Every token by its id; each variant has other words, in another order."""
    tokens = list(WORDS)
    if variant:
        shuffler = random.Random(variant)
        shuffler.shuffle(tokens)
        del tokens[-40:]
    singles = [*string.ascii_lowercase, *string.digits]
    tokens += [*singles, *string.punctuation, *(f"##{piece}" for piece in (*singles, *SUFFIXES))]
    return [*SPECIALS, *dict.fromkeys(tokens)]


def words(n: int, seed: int) -> list[str]:
    """Random texts of 1 to 120 words, as many short as long on a logarithmic scale, in random order."""
    source = random.Random(seed)
    lengths = [round(120 ** (i / max(n - 1, 1))) for i in range(n)]
    source.shuffle(lengths)
    return [" ".join(source.choices(WORDS, k=length)) for length in lengths]


def symmetric(
    folder: Path,
    *,
    seed: int = 0,
    dims: int = DIMS,
    pooling: PoolingMode = "mean",
    normalize: bool = True,
    max_length: int = 64,
    prompts: Mapping[str, str] | None = None,
    similarity: Similarity | None = None,
    position_limit: int = 128,
) -> Path:
    """One tower for both sides; without `similarity` the saved configuration names none."""
    tower = _transformer(_bert(seed, dims=dims, position_limit=position_limit), _fast_tokenizer(max_length))
    modules = [tower, Pooling(dims, pooling), *([Normalize()] if normalize else [])]
    return _save(modules, folder, prompts=prompts, similarity=similarity)


def dot_trained(folder: Path, seed: int = 0) -> Path:
    """CLS vectors of any length, compared by dot product."""
    return symmetric(folder, seed=seed, pooling="cls", normalize=False, similarity="dot")


def prompted(folder: Path, seed: int = 0) -> Path:
    """Two prompts on one tower; `encode_document` of sentence-transformers never reaches the one named "passage"."""
    return symmetric(folder, seed=seed, prompts=E5_PROMPTS)


def instructor(folder: Path, seed: int = 0) -> Path:
    """Prompts that the tower reads and the mean leaves out, then a projection to `DENSE_DIMS`."""
    modules = [
        _transformer(_bert(seed), _fast_tokenizer()),
        Pooling(DIMS, "mean", include_prompt=False),
        _drawn(Dense(DIMS, DENSE_DIMS, bias=False, activation_function=torch.nn.Identity()), seed + 1),
        Normalize(),
    ]
    return _save(modules, folder, prompts=E5_PROMPTS)


def last_token(folder: Path, seed: int = 0, *, max_length: int = 64, position_limit: int = 128) -> Path:
    """A decoder (Qwen3) that pads on the left and pools its last token, with an instruction for queries."""
    tokenizer = _fast_tokenizer(max_length, padding_side="left", inputs=("input_ids", "attention_mask"))
    modules = [_transformer(_decoder(seed, position_limit), tokenizer), Pooling(DIMS, "lasttoken"), Normalize()]
    return _save(modules, folder, prompts=INSTRUCT_PROMPTS, similarity="cosine")


def roberta(folder: Path, seed: int = 0, *, max_length: int = 64, position_limit: int = 130) -> Path:
    """A tower whose positions begin after the padding index, which costs two of its ``position_limit``."""
    config = RobertaConfig(**_bert_config(position_limit=position_limit))
    tower = _transformer(_drawn(RobertaModel(config), seed), _fast_tokenizer(max_length))
    return _save([tower, Pooling(DIMS, "mean")], folder)


def mpnet(folder: Path, seed: int = 0, *, max_length: int = 64, position_limit: int = 130) -> Path:
    """A tower with attention of its own, which nothing replaces."""
    config = MPNetConfig(**_bert_config(position_limit=position_limit))
    tokenizer = _fast_tokenizer(max_length, inputs=("input_ids", "attention_mask"))
    return _save([_transformer(_drawn(MPNetModel(config), seed), tokenizer), Pooling(DIMS, "mean")], folder)


def t5(folder: Path, seed: int = 0, *, max_length: int = 64) -> Path:
    """An encoder with relative positions, part of which stays in float32 where the rest is float16."""
    config = T5Config(
        vocab_size=len(vocabulary()), d_model=DIMS, d_kv=16, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0
    )
    tokenizer = _fast_tokenizer(max_length, inputs=("input_ids", "attention_mask"))
    return _save([_transformer(_drawn(T5EncoderModel(config), seed), tokenizer), Pooling(DIMS, "mean")], folder)


def modern(folder: Path, seed: int = 0, *, max_length: int = 64) -> Path:
    """ModernBERT: rotary positions, and two of its three layers attend to eight places on each side only."""
    config = ModernBertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=DIMS,
        intermediate_size=2 * DIMS,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=max(128, max_length),
        local_attention=16,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    )
    tokenizer = _fast_tokenizer(max_length, inputs=("input_ids", "attention_mask"))
    return _save([_transformer(_drawn(ModernBertModel(config), seed), tokenizer), Pooling(DIMS, "cls")], folder)


def dual(folder: Path, seed: int = 0) -> Path:
    """Two models, `query` and `document`, of equal dimensions: the same word has another id, or none, in each."""
    for variant, name in enumerate(("document", "query")):
        tower = _transformer(_bert(seed + variant, variant=variant), _fast_tokenizer(variant=variant))
        _save([tower, Pooling(DIMS, "cls")], folder / name, similarity="dot")
    return folder


def dpr_pair(folder: Path, seed: int = 0) -> Path:
    """Two towers as DPR was published: `question` and `context`, in the layout of transformers alone."""
    config = {**_bert_config(), "projection_dim": 0}
    for drawn, (name, kind) in enumerate((("question", DPRQuestionEncoder), ("context", DPRContextEncoder))):
        _save_plain(_drawn(kind(DPRConfig(**config)), seed + drawn), _fast_tokenizer(), folder / name)
    return folder


def router(folder: Path, seed: int = 0) -> Path:
    """Queries through a table of tokens, documents through a transformer, both normalized after the router."""
    tokenizer = _tokenizer()
    tokenizer.no_truncation()
    table = torch.randn(tokenizer.get_vocab_size(), DIMS, generator=torch.Generator().manual_seed(seed + 1))
    document = [_transformer(_bert(seed), _fast_tokenizer()), Pooling(DIMS, "mean")]
    towers = Router.for_query_document([StaticEmbedding(tokenizer, embedding_weights=table)], document)
    return _save([towers, Normalize()], folder, similarity="cosine")


def router_deep(folder: Path, seed: int = 0) -> Path:
    """Queries of 32 tokens through one layer, documents of 64 tokens through two."""
    query = [_transformer(_bert(seed + 1, layers=1), _fast_tokenizer(32)), Pooling(DIMS, "mean")]
    document = [_transformer(_bert(seed, layers=2), _fast_tokenizer(64)), Pooling(DIMS, "mean")]
    return _save([Router.for_query_document(query, document)], folder, similarity="cosine")


def cross_encoder(
    folder: Path, seed: int = 0, *, labels: int = 1, max_length: int = 64, kind: Literal["bert", "roberta"] = "bert"
) -> Path:
    """A model that reads two texts together and gives the pair one score (or label), in the layout of transformers."""
    config = {**_bert_config(), "num_labels": labels}
    head: PreTrainedModel
    if kind == "bert":
        head = BertForSequenceClassification(BertConfig(**config))
    else:
        head = RobertaForSequenceClassification(RobertaConfig(**config))
    return _save_plain(_drawn(head, seed), _fast_tokenizer(max_length), folder)


def pickled(folder: Path) -> Path:
    """A symmetric model whose weights are a pickle and nothing else."""
    weights = symmetric(folder) / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def without_modules(folder: Path) -> Path:
    """A transformer with its tokenizer, and no word on how to pool it."""
    return _save_plain(_bert(0), _fast_tokenizer(), folder)


def half_precision(folder: Path, dtype: Literal["float16", "bfloat16"] = "float16") -> Path:
    """A symmetric model whose checkpoint is stored in two bytes a weight."""
    halved = _bert(0).to(getattr(torch, dtype))
    return _save([_transformer(halved, _fast_tokenizer()), Pooling(DIMS, "mean"), Normalize()], folder)


def change_weight(folder: Path) -> None:
    """Another model by one number: a bias or scale where there is one, so that every vector moves."""
    path = min(folder.rglob("*.safetensors"))
    tensors = load_file(path)
    name = min(tensors, key=lambda name: (tensors[name].ndim, name))
    changed = tensors[name].clone()
    changed.view(-1)[0] += 0.5
    save_file({**tensors, name: changed}, path, metadata={"format": "pt"})


def _save(
    modules: Iterable[Module],
    folder: Path,
    *,
    prompts: Mapping[str, str] | None = None,
    similarity: Similarity | None = None,
) -> Path:
    model = SentenceTransformer(
        modules=list(modules),
        device="cpu",
        prompts=None if prompts is None else dict(prompts),
        similarity_fn_name=similarity,
    )
    model.save_pretrained(str(folder), create_model_card=False)
    if similarity is None:  # saving has written "cosine", which nobody said
        path = folder / "config_sentence_transformers.json"
        config = json.loads(path.read_text())
        del config["similarity_fn_name"]
        path.write_text(json.dumps(config, indent=2, sort_keys=True))
    return folder


def _save_plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _transformer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Transformer:
    with tempfile.TemporaryDirectory() as folder:
        _save_plain(model, tokenizer, Path(folder))
        tower: Transformer = Transformer(folder)
        return tower


def _tokenizer(variant: int = 0) -> Tokenizer:
    ids = {token: i for i, token in enumerate(vocabulary(variant))}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _fast_tokenizer(
    max_length: int = 64,
    *,
    variant: int = 0,
    padding_side: Literal["left", "right"] = "right",
    inputs: Iterable[str] = ("input_ids", "token_type_ids", "attention_mask"),
) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(variant),
        model_max_length=max_length,
        model_input_names=list(inputs),
        padding_side=padding_side,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _bert_config(*, dims: int = DIMS, layers: int = 2, variant: int = 0, position_limit: int = 128) -> dict[str, Any]:
    return {
        "vocab_size": len(vocabulary(variant)),
        "hidden_size": dims,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * dims,
        "max_position_embeddings": position_limit,
        "pad_token_id": 0,
    }


def _bert(seed: int, **shape: int) -> BertModel:
    return _drawn(BertModel(BertConfig(**_bert_config(**shape))), seed)


def _decoder(seed: int, position_limit: int) -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=len(vocabulary()),
        hidden_size=DIMS,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=DIMS // 2,
        intermediate_size=2 * DIMS,
        max_position_embeddings=position_limit,
        pad_token_id=0,
    )
    return _drawn(Qwen3Model(config), seed)


def _drawn(model: Drawn, seed: int) -> Drawn:
    """The model with weights drawn from the seed alone: what a text says outweighs where in it a word stands."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            width = 0.1 if weight.ndim == 1 else 1.0 if "word_embeddings" in name or "embed_tokens" in name else 0.3
            weight.copy_(torch.randn(weight.shape, generator=generator) * width + mean)
    return model.eval()
