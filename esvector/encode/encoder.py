"""The encoder: what esvector asks of any model, and sentence-transformers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from esvector.encode.models import find_model, hash_model
from esvector.encode.profile import EncoderProfile, Similarity
from esvector.errors import EncoderError, EncoderMismatchError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoder", "SentenceTransformerEncoder", "check_match", "load_encoder"]


class Encoder(Protocol):
    """What an application may bring instead of a model's name. One thread uses it at a time."""

    @property
    def profile(self) -> EncoderProfile:
        """The complete profile: every fact but ``revision`` filled in."""

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text as a document, prompt and special tokens included, before any cut: (n,) int64."""

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of queries: (n, dims) float32, unit length where the profile says ``normalize``."""

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of documents: (n, dims) float32, unit length where the profile says ``normalize``."""


def load_encoder(profile: EncoderProfile, device: str | None = None) -> Encoder:
    """Load the encoder that ``profile`` describes, on ``device`` (None: a GPU where there is one).

    Raises EncoderError when the model cannot be found or loaded, EncoderMismatchError when the profile states a fact
    that the model at hand does not have (a changed weight, say).
    """
    encoder = SentenceTransformerEncoder(profile, device)
    check_match(profile, encoder.profile)
    return encoder


def check_match(expected: EncoderProfile, actual: EncoderProfile) -> None:
    """Raise EncoderMismatchError unless ``actual`` has every fact that ``expected`` states."""
    stated = replace(actual, **{k: v for k, v in expected.to_dict().items() if v is not None})
    if differences := stated.differences(actual):
        lines = [f"  {name}: {theirs!r} expected, {ours!r} found" for name, (theirs, ours) in differences.items()]
        raise EncoderMismatchError(
            f"the encoder {actual.model} is not the one expected ({expected.model}):\n" + "\n".join(lines),
            "search with the encoder that made the index, or index the documents again with this one",
        )


class SentenceTransformerEncoder:
    """A model of sentence-transformers, one tower for both sides, with explicit prompts."""

    def __init__(self, profile: EncoderProfile, device: str | None = None) -> None:
        files = find_model(profile.model, profile.revision)
        self._model = _load(str(files.path), device)
        if profile.max_length is not None:
            self._model.max_seq_length = profile.max_length
        self.profile = _complete(profile, self._model, files.name, files.revision, hash_model(files.path))
        self._tokenizer = _rust_tokenizer(self._model)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text as a document, prompt and special tokens included, before any cut: (n,) int64."""
        prompt = self.profile.document_prompt or ""
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return np.fromiter((len(encoding) for encoding in encodings), np.int64, len(texts))

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of queries: (n, dims) float32, unit length where the profile says ``normalize``."""
        return self._encode(self._model.encode_query, texts, self.profile.query_prompt)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of documents: (n, dims) float32, unit length where the profile says ``normalize``."""
        return self._encode(self._model.encode_document, texts, self.profile.document_prompt)

    def _encode(self, method: Any, texts: Sequence[str], prompt: str | None) -> NDArray[np.float32]:  # noqa: ANN401
        # The prompt is always explicit: encode_document never reaches a model's "passage" prompt by itself, because
        # sentence-transformers 6.2 seeds an empty "document" prompt that wins.
        vectors = method(
            list(texts),
            prompt=prompt or "",
            batch_size=max(len(texts), 1),
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        floats: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
        return unit_length(floats) if self.profile.normalize else floats


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors scaled to length 1 in float32: (n, dims). A zero vector stays zero; NaN stays NaN."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are the writer's to refuse, by document
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: NDArray[np.float32] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms != 0)
    return scaled


def _load(path: str, device: str | None) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            path,
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    except Exception as error:  # a model folder can fail in any way its modules can
        raise EncoderError(
            f"cannot load the model in {path}: {type(error).__name__}: {error}",
            "check that the folder is a complete sentence-transformers model",
        ) from error


def _rust_tokenizer(model: SentenceTransformer) -> Any:  # noqa: ANN401
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EncoderError("the model's tokenizer has no Rust implementation", "use a model with a tokenizer.json")
    # A copy of our own: counting runs beside encoding, and must see texts uncut and unpadded.
    own = Tokenizer.from_str(backend.to_str())
    own.no_truncation()
    own.no_padding()
    return own


def _complete(
    asked: EncoderProfile, model: SentenceTransformer, name: str, revision: str | None, weights: str
) -> EncoderProfile:
    """Fill every fact that ``asked`` leaves open from the loaded model."""
    similarity = asked.similarity or _similarity(model)
    modules = [type(module).__name__ for module in model]
    return EncoderProfile(
        model=name,
        revision=revision,
        weights=weights,
        query_prompt=_prompt(asked.query_prompt, model.prompts, "query"),
        document_prompt=_prompt(asked.document_prompt, model.prompts, "document", "passage", "corpus"),
        pooling=_pooling(model),
        normalize=similarity == "cosine" or "Normalize" in modules or bool(asked.normalize),
        similarity=similarity,
        dims=model.get_embedding_dimension(),
        max_length=model.max_seq_length,
        dtype=str(model.dtype).removeprefix("torch."),
    )


def _prompt(asked: str | None, prompts: Mapping[str, str | None], *names: str) -> str:
    if asked is not None:
        return asked
    return next((prompt for name in names if (prompt := prompts.get(name))), "")


def _pooling(model: SentenceTransformer) -> str:
    modes = [module.pooling_mode for module in model if hasattr(module, "pooling_mode")]
    return "+".join(str(mode) for mode in modes) or "none"


def _similarity(model: SentenceTransformer) -> Similarity:
    match model.similarity_fn_name:
        case "cosine" | None:
            return "cosine"
        case "dot":
            return "dot"
        case other:
            raise EncoderError(
                f"the model's similarity is {other!r}, which has no exact counterpart here",
                "state similarity='cosine' or 'dot' in the profile (--similarity) if the model works with it",
            )
