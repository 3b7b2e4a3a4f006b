"""Weights from a file and the shape that is said to be theirs: compared before a model of that shape is built."""

from collections.abc import Mapping

from torch import Tensor

from minigpt.errors import CheckpointError
from minigpt.model.config import ModelConfig
from minigpt.model.count import num_parameters

_TENSORS_A_LAYER = 9


def check_depth(config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Nothing, when there may be weights for all layers: a model of a billion is not built, not even without values.

    Raises:
        CheckpointError: there are not.
    """
    if config.num_layers > len(weights):
        raise CheckpointError(
            f"the checkpoint has another model: {len(weights)} tensors, and model.num_layers = "
            f"{config.num_layers}; resume with the run's own model section"
        )


def check_weights(config: ModelConfig, weights: Mapping[str, Tensor], place: object) -> None:
    """Nothing, when the shape has as many parameters as there are weights; so a model of it takes no more memory.

    Raises:
        CheckpointError: it has not.
    """
    embedding = weights.get("embedding.weight")
    held = sum(weight.numel() for weight in weights.values())
    if (
        embedding is None
        or embedding.dim() != 2
        or config.num_layers * _TENSORS_A_LAYER > len(weights)
        or num_parameters(config, embedding.shape[0]) != held
    ):
        raise CheckpointError(f"{place}: its weights do not fit its own config's model section")
