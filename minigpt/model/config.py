"""The shape of the transformer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from minigpt.schema import Config, Float, Int


class ModelConfig(Config):
    """Shape and options of the decoder-only transformer; the vocabulary comes from the tokenizer."""

    num_layers: Annotated[Int, Field(ge=1)] = 6
    """Transformer blocks."""
    hidden_size: Annotated[Int, Field(ge=2)] = 384
    """Width of the residual stream."""
    num_heads: Annotated[Int, Field(ge=1)] = 6
    """Query heads; hidden_size / num_heads is the head's width and must be even (rotary pairs)."""
    num_kv_heads: Annotated[Int, Field(ge=1)] | None = None
    """Key/value heads (grouped-query attention); null: as many as num_heads."""
    intermediate_size: Annotated[Int, Field(ge=1)] | None = None
    """Width of the SwiGLU; null: 8/3 of hidden_size, rounded up to a multiple of 64."""
    context_length: Annotated[Int, Field(ge=2)] = 256
    """Tokens a training window holds, and the longest attention span."""
    rope_theta: Annotated[Float, Field(gt=0)] = 10000.0
    """Base of the rotary frequencies (arXiv 2104.09864)."""
    rms_norm_eps: Annotated[Float, Field(gt=0)] = 1e-5
    """Added to the mean square inside RMSNorm."""
    qk_norm: bool = False
    """RMSNorm on queries and keys before the rotation (arXiv 2010.04245): bounds the attention logits."""
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head."""
    norm_position: Literal["pre", "post"] = "pre"
    """Norm before each branch (pre), or after each residual sum (post: for comparison, unstable when deep)."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the two residual branches."""
    init_std: Annotated[Float, Field(gt=0)] = 0.02
    """Standard deviation of the weights at the start; branch outputs are scaled down by sqrt(2 num_layers)."""
    zero_init_outputs: bool = False
    """Start the branches' last matrices at 0, so that every block begins as the identity (arXiv 1901.09321)."""
    z_loss_weight: Annotated[Float, Field(ge=0)] = 0.0
    """Weight of the mean squared log-partition added to the loss (arXiv 2204.02311); 1e-4 is usual, 0 is off."""
    logit_softcap: Annotated[Float, Field(gt=0)] | None = None
    """Squash logits into (-c, c) by c tanh(logit / c) (Gemma 2, arXiv 2408.00118); 30 is usual, null is off."""
    value_embedding_layers: Annotated[Int, Field(ge=0)] = 0
    """Layers whose values get a learned row for each token id besides: every second one, the last first; 0 is off."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            wanted = 2 * self.num_heads
            below, above = self.hidden_size // wanted * wanted, -(-self.hidden_size // wanted) * wanted
            raise ValueError(
                f"hidden_size = {self.hidden_size} is not an even multiple of num_heads = {self.num_heads}; "
                f"use {f'{below} or ' if below else ''}{above}"
            )
        if self.num_heads % self.resolved_num_kv_heads:
            fits = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            raise ValueError(
                f"num_kv_heads = {self.num_kv_heads} does not divide num_heads = {self.num_heads}; use one of {fits}"
            )
        return self

    @model_validator(mode="after")
    def _check_value_embeddings(self) -> Self:
        most = -(-self.num_layers // 2)
        if self.value_embedding_layers > most:
            raise ValueError(
                f"value_embedding_layers = {self.value_embedding_layers} is more than every second one of num_layers = "
                f"{self.num_layers}; use {most} or less"
            )
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def resolved_num_kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def layers_with_value_embedding(self) -> range:
        """Every second one, the last first: the deeper, the less of the token itself is left in the stream."""
        return range(self.num_layers - 1, -1, -2)[: self.value_embedding_layers]

    @property
    def resolved_intermediate_size(self) -> int:
        return self.intermediate_size or -(-8 * self.hidden_size // (3 * 64)) * 64
