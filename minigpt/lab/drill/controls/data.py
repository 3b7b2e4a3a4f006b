"""Data that change, repeat or surprise, as real data do."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minigpt.lab.drill.language import language
from minigpt.lab.drill.scenario import Control
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class OtherLanguage(Control):
    """From given steps on the texts come from another language."""

    changes: tuple[tuple[int, int, float], ...]
    """(step, seed, noise) of each language that takes over."""
    declared: bool = False

    def before_step(self, training: Training) -> None:
        for step, seed, noise in self.changes:
            if step == training.step:
                training.language = language(seed, self.setting.vocab_size, noise)
                if self.declared:
                    training.watch.declare_change()


@dataclass(frozen=True, kw_only=True)
class ChangedMixture(Control):
    """From `since` on half of each batch comes from another language."""

    since: int = 300

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if training.step < self.since:
            return inputs_BT, targets_BT
        half = inputs_BT.shape[0] // 2
        other = language(77, self.setting.vocab_size, 0.15)
        both = torch.from_numpy(other.windows(training.data_chance, half, inputs_BT.shape[1]))
        inputs_BT[:half], targets_BT[:half] = both[:, :-1], both[:, 1:]
        return inputs_BT, targets_BT


@dataclass(frozen=True, kw_only=True)
class HardBatches(Control):
    """Every `period` steps half of a batch is of random words: it cannot be predicted."""

    period: int = 37

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if training.step % self.period == 0:
            half, length = inputs_BT.shape[0] // 2, inputs_BT.shape[1]
            noise = torch.randint(self.setting.vocab_size, (half, length + 1), generator=training.chance)
            inputs_BT[:half], targets_BT[:half] = noise[:, :-1], noise[:, 1:]
        return inputs_BT, targets_BT


@dataclass(frozen=True, kw_only=True)
class FewBatches(Control):
    """A small data set, gone through again and again: `shuffled` anew each epoch, or in the same batches."""

    batches: int = 24
    shuffled: bool = False

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        size = self.setting.batch_size
        both: Tensor = training.notes.get("windows", torch.empty(0))
        if "windows" not in training.notes:
            chance = np.random.default_rng(training.seed)
            drawn = training.language.windows(chance, self.batches * size, training.context_length)
            both = training.notes["windows"] = torch.from_numpy(drawn)
        epoch, place = divmod(training.step - 1, self.batches)
        rows = torch.arange(len(both))
        if self.shuffled:
            rows = torch.randperm(len(both), generator=torch.Generator().manual_seed(epoch))
        chosen = both[rows[place * size : (place + 1) * size]]
        return chosen[:, :-1], chosen[:, 1:]


@dataclass(frozen=True, kw_only=True)
class GrowingContext(Control):
    """The windows get longer: 16, 32, then 64 tokens."""

    def before_step(self, training: Training) -> None:
        training.context_length = 16 if training.step < 150 else 32 if training.step < 300 else 64


@dataclass(frozen=True, kw_only=True)
class Padded(Control):
    """Texts of different lengths: what lies behind a text's end is masked out and filled with one id."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        B, T = inputs_BT.shape
        lengths_B1 = torch.randint(T // 8, T + 1, (B, 1), generator=training.chance)
        beyond_BT = torch.arange(T) >= lengths_B1
        return inputs_BT.masked_fill(beyond_BT, 0), targets_BT.masked_fill(beyond_BT, -100)


CONTROLS: list[Control] = [
    OtherLanguage(
        name="curriculum", changes=((1, 0, 0.02), (150, 0, 0.2), (320, 0, 0.5)), setting=Setting(steps=500)
    ),
    OtherLanguage(
        name="language_changes_declared", changes=((250, 5, 0.15),), declared=True, setting=Setting(steps=450)
    ),
    ChangedMixture(name="mixture_changes", setting=Setting(steps=500)),
    HardBatches(name="hard_batches", setting=Setting(steps=600)),
    FewBatches(name="tiny_data_set", setting=Setting(steps=700, noise=0.4, learning_rate=4e-3)),
    FewBatches(name="tiny_data_set_shuffled", shuffled=True, batches=12, setting=Setting(steps=500)),
    GrowingContext(name="growing_context", setting=Setting(steps=450)),
    Padded(name="padded_texts", setting=Setting(steps=400)),
    Control(
        name="converged_plateau", setting=Setting(steps=1000, vocab_size=32, noise=0.3, learning_rate=4e-3)
    ),
    Control(name="batch_of_one", setting=Setting(steps=600, batch_size=1, learning_rate=1e-3)),
    Control(name="pure_noise", setting=Setting(steps=400, noise=1.0, shows_schedule=False)),
    Control(name="few_words", setting=Setting(steps=400, vocab_size=16)),
]
