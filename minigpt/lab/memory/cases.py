"""The trainings whose memory is measured: each differs from the others in kind.

`CASES` set the estimates of `planning.cpu_process`; `UNSEEN` are other shapes, which only judge them.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A training of a few steps."""

    name: str
    vocab_size: int = 8192
    micro_batch_size: int = 16
    grad_accum_steps: int = 2
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"


_MEDIUM = {"num_layers": 16, "hidden_size": 512, "num_heads": 8, "context_length": 512}
_WIDE = {"num_layers": 2, "hidden_size": 1024, "num_heads": 16, "context_length": 256}
_FP32, _BF16 = {"mixed_precision": "off"}, {"mixed_precision": "bf16"}
_COMPILED = {"compile": "on", **_BF16}


def _recomputing(kind: str) -> dict[str, Any]:
    return {"activation_checkpointing": kind}


CASES = (
    Case("small, fp32", training=_FP32),
    Case("small, bf16", training=_BF16),
    Case("small, bf16, Muon", training=_BF16, optimizer="muon"),
    Case("small, bf16, nothing accumulated", training=_BF16, grad_accum_steps=1),
    Case("medium, bf16", 16384, 8, model=_MEDIUM, training=_BF16),
    Case("medium, bf16, Muon, grouped heads", 16384, 4, model={**_MEDIUM, "num_kv_heads": 2},
         training=_BF16, optimizer="muon"),
    Case("medium, fp32, selective", 16384, 4, model=_MEDIUM, training={**_FP32, **_recomputing("selective")}),
    Case("medium, bf16, selective", 16384, 8, model=_MEDIUM, training={**_BF16, **_recomputing("selective")}),
    Case("medium, bf16, full", 16384, 8, model=_MEDIUM, training={**_BF16, **_recomputing("full")}),
    Case("wide, bf16", 8192, 16, model=_WIDE, training=_BF16),
    Case("wide, fp32, nothing accumulated", 8192, 8, 1, model=_WIDE, training=_FP32),
    Case("deep and narrow, fp32, qk_norm", 2048, 16, training=_FP32,
         model={"num_layers": 24, "hidden_size": 256, "num_heads": 4, "context_length": 256, "qk_norm": True}),
    Case("long context, bf16, qk_norm", 8192, 1,
         model={"num_layers": 8, "context_length": 4096, "qk_norm": True}, training=_BF16),
    Case("large vocabulary, bf16, z-loss, untied", 32768, 8, training=_BF16,
         model={"num_layers": 4, "z_loss_weight": 1e-4, "tie_embeddings": False}),
    Case("large vocabulary, fp32", 50304, 4, training=_FP32, model={"num_layers": 4}),
    Case("dropout, bf16, Post-Norm", 8192, 16, training=_BF16,
         model={"dropout": 0.1, "norm_position": "post"}),
    Case("dropout, bf16, selective", 8192, 16, training={**_BF16, **_recomputing("selective")},
         model={"dropout": 0.1, "num_layers": 12}),
    Case("small, bf16, compiled", training=_COMPILED),
    Case("small, fp32, compiled", training={"compile": "on", **_FP32}),
    Case("small, bf16, compiled, Muon, dropout, qk_norm", training=_COMPILED, optimizer="muon",
         model={"dropout": 0.1, "qk_norm": True}),
    Case("medium, bf16, compiled", 16384, 8, model=_MEDIUM, training=_COMPILED),
    Case("medium, bf16, compiled, selective", 16384, 8, model=_MEDIUM,
         training={**_COMPILED, **_recomputing("selective")}),
    Case("medium, bf16, compiled, full", 16384, 8, model=_MEDIUM,
         training={**_COMPILED, **_recomputing("full")}),
)  # fmt: skip


def _shape(layers: int, hidden: int, context: int, **more: Any) -> dict[str, Any]:
    return {
        "num_layers": layers,
        "hidden_size": hidden,
        "num_heads": hidden // 64,
        "context_length": context,
        **more,
    }


UNSEEN = (
    Case("12x256@512, bf16", 4096, 8, model=_shape(12, 256, 512), training=_BF16),
    Case("4x768@256, fp32, four accumulated", 16384, 8, 4, model=_shape(4, 768, 256), training=_FP32),
    Case("8x512@1024, bf16, grouped heads", 8192, 4, model=_shape(8, 512, 1024, num_kv_heads=2), training=_BF16),
    Case("3x640@128, fp32, nothing accumulated", 2048, 64, 1, model=_shape(3, 640, 128), training=_FP32),
    Case("10x320@256, fp32, full", 8192, 16, model=_shape(10, 320, 256), training={**_FP32, **_recomputing("full")}),
    Case("20x384@256, bf16, selective", 8192, 8, model=_shape(20, 384, 256),
         training={**_BF16, **_recomputing("selective")}),
    Case("8x384@2048, bf16, Muon", 8192, 2, model=_shape(8, 384, 2048), training=_BF16, optimizer="muon"),
    Case("5x448@256, fp32, untied, soft cap", 32768, 8, training=_FP32,
         model=_shape(5, 448, 256, tie_embeddings=False, logit_softcap=30.0)),
    Case("20x384@256, bf16, dropout", 8192, 8, model=_shape(20, 384, 256, dropout=0.1), training=_BF16),
    Case("6x768@512, fp32, qk_norm, Muon", 8192, 4, model=_shape(6, 768, 512, qk_norm=True), training=_FP32,
         optimizer="muon"),
    Case("4x512@256, bf16, compiled", 8192, 16, model=_shape(4, 512, 256), training=_COMPILED),
    Case("12x256@512, fp32, compiled, Muon", 4096, 8, model=_shape(12, 256, 512), optimizer="muon",
         training={**_FP32, "compile": "on"}),
    Case("8x384@256, bf16, compiled, full, nothing accumulated", 8192, 32, 1, model=_shape(8, 384, 256),
         training={**_COMPILED, **_recomputing("full")}),
    Case("4x384@2048, bf16, compiled", 16384, 4, model=_shape(4, 384, 2048), training=_COMPILED),
)  # fmt: skip
