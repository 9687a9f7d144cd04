"""DPR as transformers wrote it, without sentence-transformers: the [CLS] embedding of a BERT under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from esvector.errors import EncoderError

__all__ = ["DprEncoder", "load_dpr"]

_LENGTH = 256  # what DPR was trained and is searched with (pyserini)
_PREFIXES = ("ctx_encoder.bert_model.", "question_encoder.bert_model.")


class DprEncoder(nn.Module):
    """A BERT whose [CLS] embedding is the vector of a passage or of a question."""

    def __init__(self, bert: nn.Module, tokenizer: Any, max_length: int) -> None:  # noqa: ANN401
        super().__init__()
        self.model = bert
        self.tokenizer = tokenizer
        self.max_seq_length = max_length

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Put ``sentence_embedding`` (n, dims) into ``features``."""
        output = self.model(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        features["sentence_embedding"] = output.last_hidden_state[:, 0]
        return features


def load_dpr(path: Path, config: dict[str, Any], dtype: torch.dtype) -> DprEncoder:
    """Load a folder of DPRContextEncoder or DPRQuestionEncoder.

    The weights are put into a BertModel with a configuration of its own: transformers 5 takes ``model_type`` "dpr" for
    a question encoder, whatever the folder holds, and fills a context encoder with random weights. Raises EncoderError
    when a weight is missing.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel

    weights = {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    inner = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        for prefix in _PREFIXES
        if name.startswith(prefix)
    }
    facts = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    if facts.pop("projection_dim", 0):
        raise EncoderError(f"the DPR encoder in {path} projects its vectors, which is not supported")
    bert: nn.Module = BertModel(BertConfig(**facts), add_pooling_layer=False)
    missing = [name for name in bert.load_state_dict(inner, strict=False).missing_keys if "position_ids" not in name]
    if missing:
        raise EncoderError(
            f"{path} lacks {len(missing)} weights of a DPR encoder, such as {missing[0]}",
            "get the model again, with its safetensors",
        )
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return DprEncoder(bert.to(dtype).eval(), tokenizer, min(_LENGTH, facts.get("max_position_embeddings", _LENGTH)))
