"""The recipe of configurations that are really trained: sizes that a test can afford, and nothing on a network."""

import json
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.cases import Recipe
from tests.fuzz.values import ODD_TEXT

_sizes = st.sampled_from


def recipe_in(folder: Path) -> Recipe:
    """Over the tiny configuration of a `tests.training.tiny_run.Workshop` in `folder`."""
    base = json.loads((folder / "tiny.yaml").read_text(encoding="utf-8"))
    corpus = str(folder / "corpus")
    odd = [text for text in ODD_TEXT if text.strip()]
    return Recipe(
        base,
        {
            ("model", "num_layers"): _sizes([1, 2, 3]),
            ("model", "hidden_size"): _sizes([2, 4, 6, 8, 16, 48]),
            ("model", "num_heads"): _sizes([1, 2, 3, 4, 8]),
            ("model", "num_kv_heads"): _sizes([None, 1, 2, 4]),
            ("model", "intermediate_size"): _sizes([None, 1, 3, 64]),
            ("model", "context_length"): _sizes([2, 4, 8, 16, 32, 64]),
            ("training", "tokens_per_step"): _sizes([1, 64, 128, 192, 256, 1024]),
            ("training", "sample_tokens"): _sizes([0, 1, 70]),
            ("training", "compile"): _sizes(["auto", "off"]),
            ("data", "source"): _sizes([corpus, [corpus], f"{corpus}/*.txt", [], [corpus, "gone"], *odd]),
            # Its server cannot be reached from a test.
            ("monitor", "wandb", "project"): st.none(),
        },
    )
