"""The list of cases: precisions, optimizers, schedules, and every rule about which checkpoints stay."""

from minigpt.lab.torture.cases import Case
from minigpt.lab.torture.spoiled import spoil_data

TROUBLE = (
    "training.max_steps=70",
    "training.eval_every_steps=1000",
    "training.check_grad_flow=false",
    "checkpoint.every_steps=10",
    "schedule.kind=constant",
    "optimizer.learning_rate=0.003",
    "model.dropout=0",
    "monitor.policy.on_sustained=rollback",
    "monitor.policy.rollback_margin_steps=3",
    "monitor.policy.act_on=[loss_spike,gradient_exploding]",
)

CASES = (
    Case("fp32, AdamW, cosine, keep_last 1", ("checkpoint.keep_last=1",), weight=2),
    Case(
        "bf16, Muon, linear, keep_best off",
        (
            "training.mixed_precision=bf16",
            "optimizer.name=muon",
            "schedule.kind=linear",
            "checkpoint.keep_best=false",
            "checkpoint.keep_last=1",
        ),
    ),
    Case(
        "fp16 + GradScaler, AdamW, wsd",
        ("training.mixed_precision=fp16", "schedule.kind=wsd", "checkpoint.keep_every_steps=8"),
    ),
    Case(
        "fp16 + GradScaler, Muon, constant",
        ("training.mixed_precision=fp16", "optimizer.name=muon", "schedule.kind=constant"),
    ),
    Case("accumulation, dropout .3", ("training.micro_batch_size=2", "model.dropout=0.3")),
    Case(
        "activation checkpointing, fp16, accumulation",
        (
            "training.activation_checkpointing=on",
            "training.mixed_precision=fp16",
            "training.micro_batch_size=4",
            "training.tokens_per_step=256",
        ),
    ),
    Case(
        "selective activation checkpointing, bf16, dropout .3",
        (
            "training.activation_checkpointing=selective",
            "training.mixed_precision=bf16",
            "model.dropout=0.3",
        ),
    ),
    Case(
        "a checkpoint every step, all kept",
        ("checkpoint.every_steps=1", "checkpoint.keep_every_steps=1", "training.max_steps=12"),
    ),
    Case(
        "a checkpoint every step, one kept",
        (
            "checkpoint.every_steps=1",
            "checkpoint.keep_last=1",
            "checkpoint.keep_best=false",
            "training.max_steps=12",
        ),
    ),
    Case(
        "every_minutes, by the clock",
        ("checkpoint.every_minutes=0.002", "checkpoint.every_steps=1000"),
        same_checkpoints=False,
    ),
    Case(
        "tied embeddings, bpe, grouped heads",
        (
            "data.tokenizer.kind=bpe",
            "data.tokenizer.vocab_size=300",
            "model.tie_embeddings=true",
            "model.num_kv_heads=1",
            "model.qk_norm=true",
        ),
    ),
    Case("rollback by the monitor", TROUBLE, spoil_data, goes_back=True),
)
COMPILED = Case(
    "compiled, bf16",
    ("training.compile=on", "training.mixed_precision=bf16", "training.max_steps=12"),
)
