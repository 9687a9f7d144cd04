"""The known families of models: how their cards say queries and documents are to be encoded. Data, and two look-ups.

What a model's own files say wins; a preset fills in what they leave open, and says what else a user should know.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from esvector.errors import ConfigError

if TYPE_CHECKING:
    from esvector.encode.profile import Kind, Similarity

__all__ = ["PRESETS", "Preset", "Suits", "find_preset", "preset_named"]

Suits = Literal["search", "similar"]


@dataclass(frozen=True, slots=True)
class Preset:
    r"""A family of models whose cards state how queries and documents are to be encoded.

    Attributes:
        family: its name here.
        example: hub name of one of its models.
        models: regular expression that matches the whole name, in lower case and without organisation or folder.
        kind: "symmetric" (one tower, no prompts), "asymmetric" (the same, but trained on questions and passages),
            "prompted", "dual" (two models), or "router" (one model with two towers).
        suits: "search" (short question, longer passage), "similar" (like with like).
        dims: of the family's sizes.
        max_length: the most tokens that one of its models reads; some read fewer. None: no limit.
        pooling: as sentence-transformers names it, of the documents; "none" for a table of token embeddings.
        licence: "not stated" where the model's card has none.
        source: where the facts are from ("ST": sentence-transformers; "mteb": the settings of its loaders; "card"
            and "files": the model's own, or copies of them). What follows "unverified:" is general knowledge, and was
            read in no source.
        similarity: what the models were trained for.
        query_prompt: put before every query.
        document_prompt: put before every document; ``{title}`` in it is the document's title, or "none".
        separator: between a document's title and its text.
        matryoshka: whether vectors may be cut to fewer dims.
        query_model: of a dual encoder, the name of the question model, with groups of ``models`` as ``\1``.
    """

    family: str
    example: str
    models: str
    kind: Kind
    suits: frozenset[Suits]
    dims: tuple[int, ...]
    max_length: int | None
    pooling: str
    licence: str
    source: str
    similarity: Similarity = "cosine"
    query_prompt: str = ""
    document_prompt: str = ""
    separator: str = " "
    matryoshka: bool = False
    query_model: str | None = None

    def matches(self, name: str) -> bool:
        """Whether the model ``name`` (a hub name or a folder) is of this family."""
        return self._match(_split(name)[1]) is not None

    def partner(self, name: str) -> str | None:
        """The question model that belongs to ``name``, beside it; itself for a question model; None if not dual."""
        place, last = _split(name)
        match = self._match(last)
        return place + match.expand(self.query_model) if match and self.query_model else None

    def _match(self, last: str) -> re.Match[str] | None:
        return re.fullmatch(self.models, last.lower())


def find_preset(name: str) -> Preset | None:
    """Find the preset of a model by its hub name or folder, also one of the hub's cache; None for an unknown one."""
    return next((preset for preset in PRESETS if preset.matches(name)), None)


def preset_named(family: str) -> Preset:
    """Return the preset of ``family``. Raises ConfigError for an unknown one, with the names most like it."""
    by_name = {preset.family: preset for preset in PRESETS}
    if (preset := by_name.get(family.lower())) is not None:
        return preset
    found = find_preset(family)  # a model's name, where a family's was meant
    near = [found.family] if found else difflib.get_close_matches(family.lower(), by_name, n=3, cutoff=0.5)
    raise ConfigError(
        f"no family of models is called {family!r}",
        f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(by_name)}",
    )


def _split(name: str) -> tuple[str, str]:
    """The organisation or folder with its slash, and the model's own name."""
    parts = name.rstrip("/").split("/")
    if cached := [part for part in parts if part.startswith("models--")]:  # models--org--name/snapshots/<commit>
        parts = cached[-1].removeprefix("models--").split("--")
    return "".join(f"{part}/" for part in parts[:-1]), parts[-1]


_SEARCH: frozenset[Suits] = frozenset({"search"})
_SIMILAR: frozenset[Suits] = frozenset({"similar"})
_BOTH = _SEARCH | _SIMILAR

_APACHE = "Apache-2.0"
_PASSAGES = "Represent this sentence for searching relevant passages: "
_PASSAGES_ZH = "为这个句子生成表示以用于检索相关文章："  # noqa: RUF001
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

# The first match counts: the special comes before the general. A family in few lines, not in one for every fact.
# fmt: off
PRESETS: tuple[Preset, ...] = (
    # sentence-transformers' own, for sentences
    Preset("all-minilm", "sentence-transformers/all-MiniLM-L6-v2", r"all-minilm-l(6|12)-v[12]", "symmetric", _BOTH,
           dims=(384,), max_length=256, pooling="mean", licence=_APACHE, source="ST docs; mteb"),
    Preset("all-mpnet", "sentence-transformers/all-mpnet-base-v2", r"all-mpnet-base-v[12]", "symmetric", _BOTH,
           dims=(768,), max_length=512, pooling="mean", licence=_APACHE, source="ST docs (v1: 512, v2: 384); mteb"),
    Preset("all-roberta", "sentence-transformers/all-distilroberta-v1", r"all-(distilroberta|roberta-large)-v1",
           "symmetric", _BOTH, dims=(768, 1024), max_length=512, pooling="mean", licence=_APACHE,
           source="ST docs; unverified: licence"),
    Preset("paraphrase-multilingual", "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
           r"paraphrase-(xlm-r-)?multilingual-.+", "symmetric", _SIMILAR, dims=(384, 768), max_length=128,
           pooling="mean", licence=_APACHE, source="ST docs; mteb (which says 512 tokens)"),
    Preset("paraphrase", "sentence-transformers/paraphrase-mpnet-base-v2", r"paraphrase-.+", "symmetric", _SIMILAR,
           dims=(384, 768), max_length=512, pooling="mean", licence=_APACHE, source="ST docs; unverified: licence"),
    Preset("distiluse", "sentence-transformers/distiluse-base-multilingual-cased-v2",
           r"distiluse-base-multilingual-cased(-v[12])?", "symmetric", _SIMILAR, dims=(512,), max_length=128,
           pooling="mean", licence=_APACHE, source="ST docs; card"),
    Preset("labse", "sentence-transformers/LaBSE", r"labse", "symmetric", _SIMILAR,
           dims=(768,), max_length=256, pooling="cls", licence=_APACHE, source="card; mteb"),
    # v2 only: cross-encoders are called stsb-roberta-base, too
    Preset("stsb-nli", "sentence-transformers/stsb-mpnet-base-v2", r"(stsb|nli)-(mpnet|roberta|distilroberta)-base-v2",
           "symmetric", _SIMILAR, dims=(768,), max_length=75, pooling="mean", licence=_APACHE,
           source="files of stsb-mpnet-base-v2; unverified: the others"),
    Preset("sentence-t5", "sentence-transformers/sentence-t5-base", r"sentence-t5-(base|large|xl|xxl)", "symmetric",
           _SIMILAR, dims=(768,), max_length=256, pooling="mean", licence=_APACHE, source="ST docs; mteb"),

    # for search, without prompts
    Preset("gtr-t5", "sentence-transformers/gtr-t5-base", r"gtr-t5-(base|large|xl|xxl)", "asymmetric", _SEARCH,
           dims=(768,), max_length=512, pooling="mean", licence=_APACHE, source="ST docs; mteb"),
    Preset("multi-qa-cos", "sentence-transformers/multi-qa-MiniLM-L6-cos-v1",
           r"multi-qa-(minilm-l6|distilbert|mpnet-base)-cos-v1", "asymmetric", _SEARCH, dims=(384, 768),
           max_length=512, pooling="mean", licence=_APACHE, source="ST docs; mteb; unverified: licence but of MiniLM"),
    Preset("multi-qa-dot", "sentence-transformers/multi-qa-mpnet-base-dot-v1",
           r"multi-qa-(minilm-l6|distilbert|mpnet-base)-dot-v1", "asymmetric", _SEARCH, similarity="dot",
           dims=(384, 768), max_length=512, pooling="cls", licence="not stated", source="ST docs; mteb"),
    Preset("msmarco-tas-b", "sentence-transformers/msmarco-distilbert-base-tas-b", r"msmarco-distilbert-base-tas-b",
           "asymmetric", _SEARCH, similarity="dot", dims=(768,), max_length=512, pooling="cls", licence=_APACHE,
           source="card; ST docs (which say mean pooling, against the files of its derivatives)"),
    Preset("msmarco-ance", "sentence-transformers/msmarco-roberta-base-ance-firstp",
           r"msmarco-roberta-base-ance-fi?rstp", "asymmetric", _SEARCH, similarity="dot", dims=(768,),
           max_length=512, pooling="cls", licence=_APACHE, source="card; ST docs"),
    Preset("msmarco-dot", "sentence-transformers/msmarco-bert-base-dot-v5",
           r"msmarco-(bert-base-dot-v5|distilbert-dot-v5|distilbert-base-dot-prod-v3)", "asymmetric", _SEARCH,
           similarity="dot", dims=(768,), max_length=512, pooling="mean", licence=_APACHE,
           source="ST docs; unverified: licence, length and pooling of dot-prod-v3"),
    Preset("msmarco-cos", "sentence-transformers/msmarco-MiniLM-L6-cos-v5",
           r"msmarco-(minilm-l-?6|minilm-l-?12|distilbert)-cos-v5", "asymmetric", _SEARCH, dims=(384, 768),
           max_length=512, pooling="mean", licence=_APACHE, source="ST docs; unverified: licence, length"),
    Preset("msmarco-older", "sentence-transformers/msmarco-distilbert-base-v4",
           r"msmarco-(minilm-l-?6|minilm-l-?12|(distilbert|distilroberta|roberta)-base)-v[234]", "asymmetric", _SEARCH,
           dims=(384, 768), max_length=512, pooling="mean", licence=_APACHE,
           source="ST docs; files of msmarco-distilbert-base-v4; unverified: the others' length"),
    Preset("contriever", "facebook/contriever-msmarco", r"m?contriever(-base)?(-msmarco)?", "asymmetric", _SEARCH,
           similarity="dot", dims=(768,), max_length=512, pooling="mean", licence="not stated", source="mteb; files"),
    Preset("static-retrieval", "sentence-transformers/static-retrieval-mrl-en-v1", r"static-retrieval-mrl-en-v1",
           "asymmetric", _SEARCH, dims=(1024,), max_length=None, pooling="none", licence=_APACHE, matryoshka=True,
           source="mteb; tags of its card"),
    Preset("static-similarity", "sentence-transformers/static-similarity-mrl-multilingual-v1",
           r"static-similarity-mrl-multilingual-v1", "symmetric", _SIMILAR, dims=(1024,), max_length=None,
           pooling="none", licence=_APACHE, matryoshka=True, source="card; mteb"),
    Preset("potion-retrieval", "minishlab/potion-retrieval-32M", r"potion-retrieval-32m", "asymmetric", _SEARCH,
           dims=(512,), max_length=None, pooling="none", licence="MIT", source="files (dims from their size)"),
    Preset("potion", "minishlab/potion-base-8M", r"potion-(base-(2|4|8|32)m|multilingual-128m)", "symmetric", _SIMILAR,
           dims=(64, 128, 256, 512), max_length=None, pooling="none", licence="MIT",
           source="mteb; dims of 32M from the file's size; unverified: what it suits"),

    # title and text in a form of their own
    Preset("dpr", "sentence-transformers/facebook-dpr-ctx_encoder-single-nq-base",
           r"(facebook-)?dpr-(?:ctx|question)_encoder-(single-nq|multiset)-base", "dual", _SEARCH, similarity="dot",
           dims=(768,), max_length=256, pooling="cls", licence="CC-BY-NC-4.0", separator=" [SEP] ",
           query_model=r"\1dpr-question_encoder-\2-base", source="ST docs; card; pyserini (length)"),
    Preset("specter", "sentence-transformers/allenai-specter", r"(allenai-)?specter", "symmetric", _SIMILAR,
           dims=(768,), max_length=512, pooling="cls", licence=_APACHE, separator="[SEP]",
           source="ST example; card; unverified: licence, length, similarity"),
    Preset("scincl", "malteos/scincl", r"scincl", "symmetric", _SIMILAR, dims=(768,), max_length=512, pooling="cls",
           licence="MIT", separator="[SEP]", source="card; unverified: dims, similarity"),

    # with prompts
    Preset("e5-mistral", "intfloat/e5-mistral-7b-instruct", r"e5-mistral-7b-instruct", "prompted", _SEARCH,
           dims=(4096,), max_length=32768, pooling="lasttoken", licence="MIT", query_prompt=_WEB_SEARCH + " ",
           source="mteb"),
    Preset("e5-multilingual-instruct", "intfloat/multilingual-e5-large-instruct", r"multilingual-e5-large-instruct",
           "prompted", _SEARCH, dims=(1024,), max_length=512, pooling="mean", licence="MIT",
           query_prompt=_WEB_SEARCH + " ", source="files; mteb"),
    Preset("e5-multilingual", "intfloat/multilingual-e5-base", r"multilingual-e5-(small|base|large)", "prompted",
           _SEARCH, dims=(384, 768, 1024), max_length=512, pooling="mean", licence="MIT",
           query_prompt="query: ", document_prompt="passage: ", source="mteb"),
    Preset("e5", "intfloat/e5-base-v2", r"e5-(small|base|large)(-v2)?", "prompted", _SEARCH, dims=(384, 768, 1024),
           max_length=512, pooling="mean", licence="MIT", query_prompt="query: ", document_prompt="passage: ",
           source="files of e5-base-v2; mteb (which says Apache-2.0 of e5-base and e5-large)"),
    Preset("bge-m3", "BAAI/bge-m3", r"bge-m3", "symmetric", _BOTH, dims=(1024,), max_length=8192, pooling="cls",
           licence="MIT", source="mteb; unverified: pooling"),
    Preset("bge-zh", "BAAI/bge-base-zh-v1.5", r"bge-(small|base|large)-zh(-v1\.5)?", "prompted", _BOTH,
           dims=(512, 768, 1024), max_length=512, pooling="cls", licence="MIT", query_prompt=_PASSAGES_ZH,
           source="mteb; unverified: pooling"),
    Preset("bge", "BAAI/bge-base-en-v1.5", r"bge-(small|base|large)-en(-v1\.5)?", "prompted", _BOTH,
           dims=(384, 768, 1024), max_length=512, pooling="cls", licence="MIT", query_prompt=_PASSAGES,
           source="mteb; files of bge-small-en-v1.5"),
    Preset("gte-qwen2", "Alibaba-NLP/gte-Qwen2-1.5B-instruct", r"gte-qwen2-(1\.5b|7b)-instruct", "prompted", _SEARCH,
           dims=(1536, 3584), max_length=32768, pooling="lasttoken", licence=_APACHE, query_prompt=_WEB_SEARCH + " ",
           source="mteb; dims from a review (mteb says 8960 of 1.5B); unverified: pooling"),
    Preset("gte-multilingual", "Alibaba-NLP/gte-multilingual-base", r"gte-multilingual-base", "symmetric", _BOTH,
           dims=(768,), max_length=8192, pooling="cls", licence=_APACHE, matryoshka=True,
           source="mteb; a review (matryoshka); unverified: pooling"),
    Preset("gte-modernbert", "Alibaba-NLP/gte-modernbert-base", r"gte-modernbert-base", "symmetric", _BOTH,
           dims=(768,), max_length=8192, pooling="cls", licence=_APACHE, source="mteb; unverified: pooling"),
    Preset("gte-v1.5", "Alibaba-NLP/gte-base-en-v1.5", r"gte-(base|large)-en-v1\.5", "symmetric", _BOTH,
           dims=(768, 1024), max_length=8192, pooling="cls", licence=_APACHE, source="card; mteb"),
    Preset("gte", "thenlper/gte-base", r"gte-(small|base|large)", "symmetric", _BOTH, dims=(384, 768, 1024),
           max_length=512, pooling="mean", licence="MIT", source="a review (it says Apache-2.0); unverified: pooling"),
    # nomic v1.5: the card applies a layer norm before it cuts the dims
    Preset("nomic-v1", "nomic-ai/nomic-embed-text-v1", r"nomic-embed-text-v1", "prompted", _SEARCH, dims=(768,),
           max_length=8192, pooling="mean", licence=_APACHE, query_prompt="search_query: ",
           document_prompt="search_document: ", source="mteb; unverified: pooling"),
    Preset("nomic-v1.5", "nomic-ai/nomic-embed-text-v1.5", r"nomic-embed-text-v1\.5", "prompted", _SEARCH, dims=(768,),
           max_length=8192, pooling="mean", licence=_APACHE, query_prompt="search_query: ", matryoshka=True,
           document_prompt="search_document: ", source="card; mteb; unverified: pooling"),
    Preset("nomic-v2", "nomic-ai/nomic-embed-text-v2-moe", r"nomic-embed-text-v2-moe", "prompted", _SEARCH, dims=(768,),
           max_length=512, pooling="mean", licence=_APACHE, query_prompt="search_query: ", matryoshka=True,
           document_prompt="search_document: ", source="card; mteb; unverified: pooling"),
    Preset("modernbert-embed", "nomic-ai/modernbert-embed-base", r"modernbert-embed-base", "prompted", _SEARCH,
           dims=(768,), max_length=8192, pooling="mean", licence=_APACHE, query_prompt="search_query: ",
           document_prompt="search_document: ", matryoshka=True, source="card; mteb; unverified: pooling"),
    Preset("arctic-v2", "Snowflake/snowflake-arctic-embed-m-v2.0", r"snowflake-arctic-embed-[ml]-v2\.0", "prompted",
           _SEARCH, dims=(768, 1024), max_length=8192, pooling="cls", licence=_APACHE, query_prompt="query: ",
           matryoshka=True, source="mteb; unverified: matryoshka"),
    Preset("arctic-v1.5", "Snowflake/snowflake-arctic-embed-m-v1.5", r"snowflake-arctic-embed-m-v1\.5", "prompted",
           _SEARCH, dims=(768,), max_length=512, pooling="cls", licence=_APACHE, query_prompt=_PASSAGES,
           matryoshka=True, source="mteb; unverified: pooling, matryoshka"),
    Preset("arctic-long", "Snowflake/snowflake-arctic-embed-m-long", r"snowflake-arctic-embed-m-long", "prompted",
           _SEARCH, dims=(768,), max_length=2048, pooling="cls", licence=_APACHE, query_prompt=_PASSAGES,
           source="mteb; unverified: pooling"),
    Preset("arctic", "Snowflake/snowflake-arctic-embed-m", r"snowflake-arctic-embed-(xs|s|m|l)", "prompted", _SEARCH,
           dims=(384, 768, 1024), max_length=512, pooling="cls", licence=_APACHE, query_prompt=_PASSAGES,
           source="mteb; unverified: pooling"),
    Preset("mxbai-xsmall", "mixedbread-ai/mxbai-embed-xsmall-v1", r"mxbai-embed-xsmall-v1", "asymmetric", _SEARCH,
           dims=(384,), max_length=4096, pooling="mean", licence=_APACHE, matryoshka=True,
           source="Mixedbread's docs (mteb says 512 tokens); unverified: pooling, that it takes no prompt"),
    Preset("mxbai-large", "mixedbread-ai/mxbai-embed-large-v1", r"mxbai-embed-large-v1", "prompted", _BOTH,
           dims=(1024,), max_length=512, pooling="cls", licence=_APACHE, query_prompt=_PASSAGES, matryoshka=True,
           source="Mixedbread's docs; mteb; a review (matryoshka); unverified: pooling"),
    Preset("jina-v2", "jinaai/jina-embeddings-v2-base-en", r"jina-embeddings-v2-(small-en|base-(en|de|es|zh|code))",
           "symmetric", _BOTH, dims=(512, 768), max_length=8192, pooling="mean", licence=_APACHE,
           source="mteb; Zilliz's docs; unverified: pooling, base-es"),
    # its prompts are half of it: each side also has an adapter (retrieval.query, retrieval.passage)
    Preset("jina-v3", "jinaai/jina-embeddings-v3", r"jina-embeddings-v3", "prompted", _SEARCH, dims=(1024,),
           max_length=8192, pooling="mean", licence="CC-BY-NC-4.0", matryoshka=True,
           query_prompt="Represent the query for retrieving evidence documents: ",
           document_prompt="Represent the document for retrieval: ", source="mteb; Zilliz's docs; unverified: pooling"),
    # no space after its "Query:", unlike the other instructed ones
    Preset("qwen3-embedding", "Qwen/Qwen3-Embedding-0.6B", r"qwen3-embedding-(0\.6b|4b|8b)", "prompted", _SEARCH,
           dims=(1024, 2560, 4096), max_length=32768, pooling="lasttoken", licence=_APACHE, query_prompt=_WEB_SEARCH,
           matryoshka=True, source="card; mteb"),
    Preset("embeddinggemma-2", "google/embeddinggemma-2", r"embeddinggemma-2", "prompted", _SEARCH, dims=(768,),
           max_length=8192, pooling="mean", licence="Gemma terms", query_prompt="task: search result | query: ",
           document_prompt="title: {title} | text: ", matryoshka=True, source="mteb"),
    Preset("embeddinggemma", "google/embeddinggemma-300m", r"embeddinggemma-300m", "prompted", _SEARCH, dims=(768,),
           max_length=2048, pooling="mean", licence="Gemma terms", query_prompt="task: search result | query: ",
           document_prompt="title: {title} | text: ", matryoshka=True, source="mteb; code that uses it (prompts)"),
    Preset("granite-r2-311m", "ibm-granite/granite-embedding-311m-multilingual-r2",
           r"granite-embedding-311m-multilingual-r2", "asymmetric", _SEARCH, dims=(768,), max_length=32768,
           pooling="cls", licence=_APACHE, matryoshka=True, source="card"),
    Preset("granite-r2-97m", "ibm-granite/granite-embedding-97m-multilingual-r2",
           r"granite-embedding-97m-multilingual-r2", "asymmetric", _SEARCH, dims=(384,), max_length=32768,
           pooling="cls", licence=_APACHE, source="card"),
    Preset("granite-r2", "ibm-granite/granite-embedding-english-r2", r"granite-embedding-(small-)?english-r2",
           "asymmetric", _SEARCH, dims=(384, 768), max_length=8192, pooling="cls", licence=_APACHE,
           source="card; mteb"),
    Preset("granite", "ibm-granite/granite-embedding-125m-english",
           r"granite-embedding-((30m|125m)-english|(107m|278m)-multilingual)", "asymmetric", _SEARCH, dims=(384, 768),
           max_length=512, pooling="cls", licence=_APACHE, source="mteb; unverified: pooling"),
    # must not pool its prompts; sentence-transformers knows that by the hub's name only
    Preset("instructor", "hkunlp/instructor-large", r"instructor-(base|large|xl)", "prompted", _SEARCH, dims=(768,),
           max_length=512, pooling="mean", licence=_APACHE, document_prompt="Represent the document for retrieval: ",
           query_prompt="Represent the question for retrieving supporting documents: ",
           source="mteb; ST docs; LangChain's default prompts; unverified: pooling"),
    Preset("leaf-asym", "MongoDB/mdbr-leaf-ir-asym", r"mdbr-leaf-(ir|mt)-asym", "router", _SEARCH, dims=(768, 1024),
           max_length=512, pooling="cls", licence=_APACHE, query_prompt=_PASSAGES, matryoshka=True,
           source="card and files of mdbr-leaf-mt-asym; mteb; unverified: pooling, matryoshka"),
    Preset("leaf-ir", "MongoDB/mdbr-leaf-ir", r"mdbr-leaf-ir", "prompted", _SEARCH, dims=(768,), max_length=512,
           pooling="mean", licence=_APACHE, query_prompt=_PASSAGES, matryoshka=True, source="card; mteb"),
    Preset("leaf-mt", "MongoDB/mdbr-leaf-mt", r"mdbr-leaf-mt", "prompted", _BOTH, dims=(1024,), max_length=512,
           pooling="mean", licence=_APACHE, query_prompt=_PASSAGES, matryoshka=True,
           source="card of leaf-ir; mteb; unverified: pooling, matryoshka"),
)
# fmt: on
