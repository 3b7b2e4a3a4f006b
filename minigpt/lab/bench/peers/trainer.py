"""transformers' own Trainer on LlamaForCausalLM: what most people type."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from minigpt.data.loader import Batch
from minigpt.lab.bench.gate import Gate
from minigpt.lab.bench.peers.llama import llama
from minigpt.lab.bench.peers.loop import facts_of, steps_of
from minigpt.lab.bench.settings import FAR
from minigpt.lab.bench.shapes import Terms


class _Batches:
    """The micro-batches in the dictionaries that Trainer hands to the model."""

    def __init__(self, steps: Iterator[list[Batch]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step in self._steps:
            for batch in step:
                yield {"input_ids": batch.inputs_BT, "labels": batch.inputs_BT}


class _Held(TrainerCallback):
    """Has Trainer wait at the gate before each step."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._gate.next_step()


class _Told(Trainer):
    """Trainer with batches that are ready-made, whose losses the gate hears of."""

    def __init__(
        self, batches: Iterable[dict[str, Tensor]], gate: Gate, accumulate: int, **named: Any
    ) -> None:
        super().__init__(**named)
        self._batches, self._gate, self._accumulate = batches, gate, accumulate
        self._losses: list[Tensor] = []

    def get_train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        return self._batches

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        loss: Tensor = super().training_step(*arguments, **named)
        self._losses.append(loss)
        if len(self._losses) == self._accumulate:
            # Each is its micro-batch's share of the step's mean.
            self._gate.record(torch.stack(self._losses).sum())
            self._losses = []
        return loss


def train_with_trainer(terms: Terms, gate: Gate) -> None:
    """Trainer on `terms`, with nothing logged, saved or evaluated."""
    steps, vocab_size = steps_of(terms)
    model = llama(terms, vocab_size)
    gate.built(facts_of(model, terms, vocab_size))
    arguments = TrainingArguments(
        output_dir="trainer",
        max_steps=FAR,
        per_device_train_batch_size=terms.shape.micro_batch_size,
        gradient_accumulation_steps=terms.shape.grad_accum_steps,
        learning_rate=terms.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=terms.warmup_steps,
        adam_beta1=terms.betas[0],
        adam_beta2=terms.betas[1],
        weight_decay=terms.weight_decay,
        max_grad_norm=terms.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=terms.precision == "bf16",
        torch_compile=terms.compile,
        use_cpu=terms.device == "cpu",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=terms.seed,
    )
    batches = _Batches(steps)
    _Told(
        batches,
        gate,
        terms.shape.grad_accum_steps,
        model=model,
        args=arguments,
        callbacks=[_Held(gate)],
    ).train()
