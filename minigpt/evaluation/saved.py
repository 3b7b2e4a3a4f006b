"""A trained model measured on a whole validation split."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from tqdm import tqdm

from minigpt.config.dump import to_yaml
from minigpt.config.load import validated
from minigpt.config.run_config import RunConfig
from minigpt.config.yaml_text import read_mapping
from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.data.loader import Batch, validation_batches
from minigpt.data.prepare import Prepared, prepare
from minigpt.data.windows import Windows
from minigpt.errors import ConfigError
from minigpt.evaluation.loss import Evaluation, evaluate
from minigpt.generation.load import LoadedModel

SEQUENCES_PER_BATCH = 16


def evaluate_saved(
    loaded: LoadedModel,
    overrides: Sequence[str],
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: bool,
) -> Evaluation:
    """The evaluation of `loaded` on the whole validation split of its own data, or of the overrides'.

    The text is always read with the model's own tokenizer.

    Raises:
        ConfigError: an override outside of the data section, or of the tokenizer.
        DataError: the corpus cannot be used.
    """
    for override in overrides:
        if not override.startswith("data.") or override.startswith("data.tokenizer"):
            raise ConfigError(
                f"--set {override}: only the data can change here, such as data.source; "
                "model and tokenizer are the trained ones"
            )
    data = with_data_overrides(loaded.config, overrides)
    prepared = corpus_of(loaded, data, progress=progress)
    windows = Windows(prepared.validation, loaded.config.model.context_length)
    batches: Iterable[Batch] = validation_batches(windows, SEQUENCES_PER_BATCH, None)
    total = -(-len(windows) // SEQUENCES_PER_BATCH)
    evaluation = evaluate(
        loaded.model,
        tqdm(batches, total=total, desc="evaluating", unit="batch", leave=False, disable=not progress),
        bytes_per_token=prepared.bytes_per_token("validation"),
        autocast=autocast,
        device=device,
        reduce_sum=_alone,
        should_stop=_never,
    )
    assert evaluation is not None
    return evaluation


def with_data_overrides(config: RunConfig, overrides: Sequence[str]) -> DataConfig:
    """The data section with `overrides`, checked as `--set` always is."""
    if not overrides:
        return config.data
    return validated(read_mapping(to_yaml(config), "the run's config"), overrides).data


def corpus_of(loaded: LoadedModel, data: DataConfig, *, progress: bool) -> Prepared:
    """The text of `data` in the tokens of the model: its own, or another's.

    Raises:
        DataError: the corpus cannot be used.
    """
    # The run's own preparation is in the cache already, under the tokenizer it asked for.
    if data == loaded.config.data:
        prepared = prepare(data, progress=progress)
        if prepared.manifest.tokenizer_id == loaded.tokenizer.id:
            return prepared
    own_tokenizer = TokenizerConfig(kind="file", path=str(loaded.tokenizer_path))
    return prepare(data.model_copy(update={"tokenizer": own_tokenizer}), progress=progress)


def _alone(value: torch.Tensor) -> torch.Tensor:
    return value


def _never() -> bool:
    return False
