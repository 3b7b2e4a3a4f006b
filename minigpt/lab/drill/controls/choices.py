"""Other optimizers, precisions, shapes and regularisers."""

from minigpt.lab.drill.scenario import Control
from minigpt.lab.drill.setting import Setting
from minigpt.model.config import ModelConfig


def shaped(
    *,
    num_layers: int = 4,
    hidden_size: int = 64,
    tie_embeddings: bool = True,
    qk_norm: bool = False,
    dropout: float = 0.0,
    z_loss_weight: float = 0.0,
    num_kv_heads: int | None = None,
) -> ModelConfig:
    """The tiny model with other choices."""
    return ModelConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=4,
        context_length=64,
        tie_embeddings=tie_embeddings,
        qk_norm=qk_norm,
        dropout=dropout,
        z_loss_weight=z_loss_weight,
        num_kv_heads=num_kv_heads,
    )


CONTROLS: list[Control] = [
    Control(
        name="sgd_momentum",
        setting=Setting(steps=500, optimizer="sgd", learning_rate=0.3, weight_decay=0.0),
    ),
    Control(name="muon", setting=Setting(steps=500, optimizer="muon")),
    Control(
        name="adafactor",
        setting=Setting(steps=500, optimizer="adafactor", learning_rate=2e-2, weight_decay=0.0),
    ),
    Control(name="fp16_calibrates", setting=Setting(steps=350, precision="fp16", initial_scale=2.0**26)),
    Control(name="bf16", setting=Setting(steps=350, precision="bf16")),
    Control(name="pure_bf16", setting=Setting(steps=350, precision="pure bf16", max_grad_norm=0.5)),
    Control(name="accumulation", setting=Setting(steps=300, accumulation=4, batch_size=4)),
    Control(name="dropout", setting=Setting(steps=500, model=shaped(dropout=0.2))),
    Control(
        name="untied_qk_norm_grouped",
        setting=Setting(steps=450, model=shaped(tie_embeddings=False, qk_norm=True, num_kv_heads=2)),
    ),
    Control(name="z_loss", setting=Setting(steps=400, model=shaped(z_loss_weight=1e-3))),
    Control(name="label_smoothing", setting=Setting(steps=400, label_smoothing=0.1)),
    Control(name="tight_clip", setting=Setting(steps=500, max_grad_norm=0.1)),
    Control(name="slow_second_moment", setting=Setting(steps=500, betas=(0.9, 0.999), weight_decay=0.0)),
    Control(
        name="deeper_and_wider",
        setting=Setting(steps=300, model=shaped(num_layers=8, hidden_size=96), learning_rate=2e-3),
    ),
    Control(name="one_layer", setting=Setting(steps=600, model=shaped(num_layers=1, hidden_size=32))),
]
