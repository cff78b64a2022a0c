"""The text encoder: RoBERTa or BERT from transformers, and the published projection, in PyTorch."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from fmmt_deploy.architecture import PlmSizes

__all__ = ["TextModel"]

ROBERTA_PADDING = 1
"""RoBERTa numbers positions from `padding id + 1`, so its position table has two rows more than tokens."""


class TextModel(nn.Module):
    """Token states of whole dialogues.

    Args:
        sizes: The language model's sizes.
        hidden_size: H, what `text_linear` projects to.
        dropout: Of sums, attention and every branch, in training only.
    """

    def __init__(self, sizes: PlmSizes, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        common = {
            "vocab_size": sizes.vocab_size,
            "hidden_size": sizes.hidden_size,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.intermediate_size,
            "type_vocab_size": sizes.type_vocab_size,
            "layer_norm_eps": sizes.layer_norm_eps,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "attn_implementation": "eager",
        }
        if sizes.kind == "roberta":
            positions = sizes.max_tokens + ROBERTA_PADDING + 1
            config = RobertaConfig(max_position_embeddings=positions, pad_token_id=ROBERTA_PADDING, **common)
            self.plm: nn.Module = RobertaModel(config, add_pooling_layer=False)
        else:
            config = BertConfig(max_position_embeddings=sizes.max_tokens, **common)
            self.plm = BertModel(config, add_pooling_layer=False)
        self.text_linear = nn.Linear(sizes.hidden_size, hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Maps `input_ids` and `attention_mask`, int64 (D, T), to token states (D, T, H).

        Padding is id 0, as published; states of padded positions mean nothing.
        """
        states = self.plm(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        projected: Tensor = self.text_linear(states)
        return projected
