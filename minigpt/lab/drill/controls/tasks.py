"""Models that are trained for something else than the next token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.drill.faults.causality import see_ahead
from minigpt.lab.drill.scenario import Control
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(Control):
    """BERT's task: attention sees the whole text, of which some tokens are hidden and asked for."""

    hidden_share: float = 0.15

    def before_build(self, training: Training) -> None:
        for index in range(self.setting.model.num_layers):
            see_ahead(training.block(index).attention)

    def batch(self, training: Training, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BT = torch.rand(inputs_BT.shape, generator=training.chance) < self.hidden_share
        mask_id = self.setting.vocab_size - 1
        return inputs_BT.masked_fill(hidden_BT, mask_id), inputs_BT.masked_fill(~hidden_BT, -100)


CONTROLS: list[Control] = [
    MaskedLanguageModel(name="bidirectional_masked_lm", setting=Setting(steps=400)),
    MaskedLanguageModel(
        name="bidirectional_masked_lm_unseen", setting=Setting(steps=400, shows_batch=False, precision="bf16")
    ),
]
