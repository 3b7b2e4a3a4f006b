"""Data that teach the wrong thing, or nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training

WRONG_LABELS = ("label_mismatch", "labels_shuffled")
LOSS_ROSE = ("loss_spike", "loss_divergence", "gradient_exploding")
TOO_GOOD = ("loss_collapse",)
UNSEEN = Setting(shows_batch=False)


@dataclass(frozen=True, kw_only=True)
class ShuffledLabels(Fault):
    """The targets are those of other places."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.active(training):
            return inputs_BT, targets_BT
        order = torch.randperm(targets_BT.numel(), generator=training.chance)
        return inputs_BT, targets_BT.flatten()[order].view_as(targets_BT)


@dataclass(frozen=True, kw_only=True)
class PartlyShuffledLabels(Fault):
    """A share of the targets are those of other places."""

    share: float = 0.3

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.active(training):
            return inputs_BT, targets_BT
        order = torch.randperm(targets_BT.numel(), generator=training.chance)
        shuffled_BT = targets_BT.flatten()[order].view_as(targets_BT)
        hit_BT = torch.rand(targets_BT.shape, generator=training.chance) < self.share
        return inputs_BT, torch.where(hit_BT, shuffled_BT, targets_BT)


@dataclass(frozen=True, kw_only=True)
class LabelsOffByTwo(Fault):
    """The targets are shifted once more than they should be."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        return inputs_BT, targets_BT.roll(-1, dims=1) if self.active(training) else targets_BT


@dataclass(frozen=True, kw_only=True)
class FewBatches(Fault):
    """The loader gives the same `count` batches in turn."""

    count: int = 2

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.active(training):
            return inputs_BT, targets_BT
        place = ("batch", training.step % self.count)
        both: tuple[Tensor, Tensor] = training.notes.setdefault(place, (inputs_BT, targets_BT))
        return both


@dataclass(frozen=True, kw_only=True)
class SameBatch(Fault):
    """The loader gives one batch for ever."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.active(training):
            return inputs_BT, targets_BT
        both: tuple[Tensor, Tensor] = training.notes.setdefault("batch", (inputs_BT, targets_BT))
        return both


@dataclass(frozen=True, kw_only=True)
class ConstantTokens(Fault):
    """The tokenizer gives one id for all."""

    token: int = 7

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.active(training):
            return inputs_BT, targets_BT
        return torch.full_like(inputs_BT, self.token), torch.full_like(targets_BT, self.token)


@dataclass(frozen=True, kw_only=True)
class LabelsAreInputs(Fault):
    """The targets are not shifted: the model is asked for what it is shown."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        return (inputs_BT, inputs_BT) if self.active(training) else (inputs_BT, targets_BT)


@dataclass(frozen=True, kw_only=True)
class EverythingMasked(Fault):
    """All targets are -100, and the mean is taken over at least one."""

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        return (
            (inputs_BT, torch.full_like(targets_BT, -100))
            if self.active(training)
            else (inputs_BT, targets_BT)
        )

    def loss(self, training: Training, loss: Tensor) -> Tensor:
        return _zero(training) if self.active(training) else loss


def _zero(training: Training) -> Tensor:
    """A loss of nothing that still reaches every parameter, with gradients of exactly 0."""
    return torch.stack([parameter.sum() for parameter in training.model.parameters()]).sum() * 0.0


FAULTS: list[Fault] = [
    ShuffledLabels(
        name="labels_shuffled_once", lasting=False, steps_wrong=1, labels=WRONG_LABELS, symptoms=LOSS_ROSE
    ),
    ShuffledLabels(name="labels_shuffled", labels=WRONG_LABELS, symptoms=LOSS_ROSE),
    ShuffledLabels(
        # From the loss alone it might be a harder text: the curriculum among the controls looks the same.
        name="labels_shuffled_unseen",
        setting=UNSEEN,
        event_is_enough=True,
        labels=("loss_spike", "loss_divergence", "data_shift"),
        symptoms=LOSS_ROSE,
    ),
    ShuffledLabels(
        name="labels_shuffled_from_start", onset=1, labels=WRONG_LABELS, symptoms=("loss_plateau",)
    ),
    PartlyShuffledLabels(name="labels_partly_shuffled", labels=WRONG_LABELS, symptoms=LOSS_ROSE),
    PartlyShuffledLabels(
        name="labels_partly_shuffled_once",
        lasting=False,
        steps_wrong=1,
        labels=WRONG_LABELS,
        symptoms=LOSS_ROSE,
    ),
    LabelsOffByTwo(
        name="labels_off_by_two",
        setting=Setting(optimizer="muon"),
        labels=WRONG_LABELS,
        symptoms=LOSS_ROSE,
    ),
    FewBatches(name="two_batches_in_turn", labels=("repeated_batch", "batch_repeats"), symptoms=TOO_GOOD),
    SameBatch(name="same_batch", labels=("repeated_batch", "batch_repeats"), symptoms=TOO_GOOD),
    SameBatch(
        name="same_batch_from_start", onset=1, labels=("repeated_batch", "batch_repeats"), symptoms=TOO_GOOD
    ),
    SameBatch(
        name="same_batch_unseen",
        setting=Setting(shows_batch=False, optimizer="muon"),
        labels=("repeated_batch", "batch_repeats"),
        symptoms=TOO_GOOD,
    ),
    ConstantTokens(
        name="constant_tokens",
        labels=("degenerate_batch", "degenerate_data"),
        symptoms=("repeated_batch", *TOO_GOOD),
    ),
    LabelsAreInputs(name="labels_are_inputs", labels=("label_leak", "label_mismatch"), symptoms=TOO_GOOD),
    LabelsAreInputs(
        name="labels_are_inputs_from_start",
        onset=1,
        labels=("label_leak", "label_mismatch"),
        symptoms=TOO_GOOD,
    ),
    EverythingMasked(
        name="everything_masked",
        labels=("degenerate_batch", "degenerate_data", "loss_collapse"),
        symptoms=("dead_layer", "gradient_vanishing", "missing_gradient", "label_mismatch"),
    ),
]
