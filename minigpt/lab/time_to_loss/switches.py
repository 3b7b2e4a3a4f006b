"""The parts of a preset's recipe that can be turned off or on one at a time."""

from minigpt.lab.time_to_loss.recipe import Recipe

SWITCHES = {
    "AdamW": ("optimizer.name=adamw", "optimizer.learning_rate=1e-3"),
    "no QK-norm": ("model.qk_norm=false",),
    "the embedding at the plain rate": ("optimizer.embedding_learning_rate_ratio=1",),
    "the embedding at twice the rate": ("optimizer.embedding_learning_rate_ratio=2",),
    "the embedding at ten times the rate": ("optimizer.embedding_learning_rate_ratio=10",),
    "linear to nothing": ("schedule.kind=linear", "schedule.min_lr_ratio=0"),
    "cosine to nothing": ("schedule.min_lr_ratio=0",),
    "stable, then down (wsd)": ("schedule.kind=wsd", "schedule.decay_ratio=0.4", "schedule.min_lr_ratio=0"),
    "AdamW's second beta at .95": ("optimizer.betas=[0.9,0.95]",),
    "half the learning rate": ("optimizer.learning_rate=2e-3",),
    "twice the learning rate": ("optimizer.learning_rate=8e-3",),
    "no weight decay": ("optimizer.weight_decay=0",),
    "z-loss": ("model.z_loss_weight=1e-4",),
    "logits soft-capped at 30": ("model.logit_softcap=30",),
    "the branches' outputs start at 0": ("model.zero_init_outputs=true",),
    "value embeddings in one layer": ("model.value_embedding_layers=1",),
    "value embeddings in two layers": ("model.value_embedding_layers=2",),
    "an untied head": ("model.tie_embeddings=false",),
}
"""By name, what it changes of config/small.yaml."""


def ablations(names: list[str] | None) -> list[Recipe]:
    """A recipe for each switch with one of `names` in its name; None: for all."""
    chosen = [name for name in SWITCHES if names is None or any(part in name for part in names)]
    return [Recipe(name, SWITCHES[name]) for name in chosen]
