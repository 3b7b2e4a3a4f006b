import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minigpt.data.prepare import prepare
from minigpt.data.windows import Windows
from minigpt.errors import MiniGPTError
from minigpt.generation.load import load_model
from minigpt.lab.layers.gradients import spread
from minigpt.lab.layers.heatmap import relative
from minigpt.lab.layers.measure import TensorStats, measured, pooled_grad, pooled_rms
from minigpt.lab.layers.names import Place, kind_order, place_of
from minigpt.lab.layers.odd import GRADIENT_OFF_BY, OFF_BY, odd_layers
from minigpt.lab.layers.read import read_weights
from minigpt.lab.layers.report import LayersReport, layers_report
from tests.training.tiny_run import Workshop

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a tiny run of 4 steps, and its corpus beside it; not to be changed."""
    folder, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert Workshop.set_up(folder).train(folder / "run", "training.max_steps=4") == 0
    yield folder
    torch.set_num_threads(threads)


def report_of(path: Path, *, gradients: bool = False) -> LayersReport:
    return layers_report(path, gradients=gradients, device=CPU)


def nanogpt(layers: int = 4) -> dict[str, Tensor]:
    """Names and kinds of tensors as nanoGPT has them; every weight 0.5."""
    found = {"transformer.wte.weight": torch.full((5, 4), 0.5), "lm_head.weight": torch.full((5, 4), 0.5)}
    for layer in range(layers):
        start = f"transformer.h.{layer}."
        found[f"{start}attn.bias"] = torch.ones(2, 2, dtype=torch.bool)  # its mask
        found[f"{start}attn.c_attn.weight"] = torch.full((12, 4), 0.5)
        found[f"{start}mlp.c_proj.weight"] = torch.full((4, 16), 0.5)
    return found


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("embedding.weight", None, "embedding"),
        ("blocks.3.attention.query.weight", 3, "q"),
        ("blocks.3.attention.key.weight", 3, "k"),
        ("blocks.3.attention.value.weight", 3, "v"),
        ("blocks.3.attention.output.weight", 3, "output"),
        ("blocks.3.attention.query_norm.weight", 3, "query norm"),
        ("blocks.11.attention_norm.weight", 11, "attention norm"),
        ("blocks.3.mlp_norm.weight", 3, "MLP norm"),
        ("blocks.3.mlp.gate.weight", 3, "gate"),
        ("blocks.3.mlp.up.weight", 3, "up"),
        ("blocks.3.mlp.down.weight", 3, "down"),
        ("norm.weight", None, "norm"),
        ("head.weight", None, "head"),
        ("model.layers.7.self_attn.q_proj.weight", 7, "q"),
        ("model.layers.7.self_attn.q_norm.weight", 7, "query norm"),
        ("model.layers.7.self_attn.k_proj.bias", 7, "k bias"),
        ("model.layers.7.self_attn.o_proj.weight", 7, "output"),
        ("model.layers.7.mlp.gate_proj.weight", 7, "gate"),
        ("model.layers.7.mlp.experts.2.w1.weight", 7, "gate"),
        ("model.layers.7.post_attention_layernorm.weight", 7, "MLP norm"),
        ("model.embed_tokens.weight", None, "embedding"),
        ("lm_head.weight", None, "head"),
        ("transformer.h.0.attn.c_attn.weight", 0, "q + k + v"),
        ("transformer.h.0.attn.c_proj.weight", 0, "output"),
        ("transformer.h.0.mlp.c_fc.weight", 0, "up"),
        ("transformer.h.0.mlp.c_proj.weight", 0, "down"),
        ("transformer.h.0.ln_2.bias", 0, "MLP norm bias"),
        ("transformer.wpe.weight", None, "positions"),
        ("transformer.ln_f.weight", None, "norm"),
        ("gpt_neox.layers.5.attention.query_key_value.weight", 5, "q + k + v"),
        ("gpt_neox.layers.5.attention.dense.weight", 5, "output"),
        ("gpt_neox.layers.5.mlp.dense_4h_to_h.weight", 5, "down"),
        ("bert.encoder.layer.2.attention.self.key.weight", 2, "k"),
        ("bert.encoder.layer.2.attention.output.dense.weight", 2, "output"),
        ("bert.encoder.layer.2.attention.output.LayerNorm.weight", 2, "attention norm"),
        ("bert.encoder.layer.2.intermediate.dense.weight", 2, "up"),
        ("bert.encoder.layer.2.output.dense.weight", 2, "down"),
        ("encoder.layers.1.self_attn.in_proj_weight", 1, "q + k + v"),
        ("encoder.layers.1.linear2.weight", 1, "down"),
        ("layer_4/mystery", 4, "other"),
    ],
)
def test_names_of_many_models_are_read(name: str, layer: int | None, kind: str) -> None:
    assert place_of(name) == Place(layer, kind)


def test_kinds_are_sorted_as_in_a_forward_pass_and_biases_last() -> None:
    kinds = ["head", "q bias", "down", "embedding", "q"]
    assert sorted(kinds, key=kind_order) == ["embedding", "q", "down", "head", "q bias"]


def test_numbers_of_a_tensor() -> None:
    found = measured("x", torch.tensor([[3.0, -4.0], [0.0, 0.0]]))
    assert (found.norm, found.rms, found.largest, found.zeros, found.non_finite) == (5.0, 2.5, 4.0, 0.5, 0)
    assert found.shape == (2, 2)
    broken = measured("x", torch.tensor([3.0, math.nan, -math.inf, 4.0]))
    assert math.isnan(broken.norm)
    assert (broken.largest, broken.non_finite) == (4.0, 2)
    assert measured("x", torch.tensor([3.0, 4.0], dtype=torch.bfloat16)).norm == 5.0


def test_tensors_of_one_place_are_pooled_as_if_they_were_one() -> None:
    parts = [measured("x", torch.tensor([3.0, 4.0]), 3.0), measured("x", torch.tensor([0.0, 0.0]), 4.0)]
    assert pooled_rms(parts) == 2.5
    assert pooled_grad(parts) == 5.0
    assert pooled_grad([measured("x", torch.ones(1))]) is None


def with_rms(values: list[float], grads: list[float | None] | None = None) -> list[TensorStats]:
    """One `down` a layer, of these RMS and gradient norms."""
    norms = grads or [None] * len(values)
    return [
        measured(f"blocks.{layer}.mlp.down.weight", torch.full((2, 2), value), norm)
        for layer, (value, norm) in enumerate(zip(values, norms, strict=True))
    ]


def test_odd_is_what_lies_far_from_the_median_of_its_kind() -> None:
    assert odd_layers(with_rms([1.0, 1.1, 0.9 * OFF_BY])) == []
    high, low = odd_layers(with_rms([1.0, 1.0, 1.0, 2 * OFF_BY, 0.5 / OFF_BY]))
    assert high.startswith("layer 3, down (blocks.3.mlp.down.weight): RMS 10 is 10 times above the median")
    assert "layer 4" in low
    assert "10 times below" in low
    assert odd_layers(with_rms([1.0, 100.0])) == []  # of two layers, neither is the odd one
    grads = odd_layers(with_rms([1.0] * 4, [1.0, 1.0, 1.0, 2 * GRADIENT_OFF_BY]))
    assert len(grads) == 1
    assert "gradient norm" in grads[0]


def test_odd_is_what_is_not_finite_zero_or_without_a_gradient() -> None:
    (nan,) = odd_layers(with_rms([1.0, math.nan, 1.0]))
    assert nan.startswith("blocks.1.mlp.down.weight: 4 of 4 weights are not finite")
    (zero,) = odd_layers(with_rms([1.0, 0.0, 1.0]))
    assert zero.startswith("blocks.1.mlp.down.weight: all zeros")
    assert odd_layers([measured("blocks.1.mlp.down.bias", torch.zeros(2))]) == []
    (dead,) = odd_layers(with_rms([1.0, 1.0, 1.0], [1.0, 0.0, 1.0]))
    assert dead == "no gradient reaches blocks.1.mlp.down.weight"
    (broken,) = odd_layers(with_rms([1.0, 1.0, 1.0], [1.0, math.nan, 1.0]))
    assert broken == "the gradients of blocks.1.mlp.down.weight are not finite"


def test_colours_are_powers_of_two_from_the_median_over_the_layers() -> None:
    grid = {(0, "q"): 1.0, (1, "q"): 2.0, (2, "q"): 8.0, (None, "norm"): 3.0, (0, "k"): math.nan}
    found = relative(grid, [0, 1, 2, None], ["q", "norm", "k"])
    assert [row[0] for row in found[:3]] == [-1.0, 0.0, 2.0]
    assert found[3][1] == 0.0
    assert all(math.isnan(row[2]) for row in found)


def test_run_folder_gives_weights_and_gradients_of_its_own_text(trained: Path) -> None:
    report = report_of(trained / "run", gradients=True)
    assert report.step == 4
    assert report.layers == [0, 1, None]
    assert report.has_gradients
    loaded = load_model(trained / "run", CPU)
    windows = Windows(
        prepare(loaded.config.data, progress=False).validation, loaded.config.model.context_length
    )
    inputs_BT, targets_BT = windows.stacked(spread(len(windows)))
    logits = loaded.model(inputs_BT)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())
    torch.autograd.backward(loss)
    for name, parameter in loaded.model.named_parameters():
        (found,) = [one for one in report.tensors if one.name == name]
        assert found.norm == pytest.approx(float(parameter.detach().norm()), rel=1e-5)
        assert parameter.grad is not None
        assert found.grad_norm == pytest.approx(float(parameter.grad.norm()), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (3, [0, 1, 2]), (8, [*range(8)]), (80, [*range(0, 80, 10)]), (11, [0, 1, 2, 4, 5, 6, 8, 9])],
)
def test_windows_are_spread_over_the_validation_text(count: int, chosen: list[int]) -> None:
    assert spread(count) == chosen


def test_checkpoint_file_gives_the_step_asked_for_and_gradients_only_where_wanted(trained: Path) -> None:
    report = report_of(trained / "run" / "checkpoint_step_0.pt")
    assert report.step == 0
    assert not report.has_gradients
    assert report.notes == ()


def test_note_says_why_there_are_no_gradients_and_the_weights_are_there(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "run" / "checkpoint_step_4.pt", tmp_path)
    report = report_of(tmp_path, gradients=True)
    assert not report.has_gradients
    (note,) = report.notes
    assert note.startswith("Gradients: none, because")
    assert "tokenizer.json is missing" in note
    assert len(report.tensors) > 10


def test_note_where_the_corpus_is_gone(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    corpus = trained / "corpus"
    corpus.rename(trained / "moved")
    try:
        report = report_of(tmp_path / "run", gradients=True)
    finally:
        (trained / "moved").rename(corpus)
    assert not report.has_gradients
    assert "data.source" in report.notes[0]


def test_newer_damaged_checkpoint_is_passed_over_and_named(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoint_step_9.pt").write_bytes(b"no checkpoint")
    report = report_of(tmp_path / "run")
    assert report.step == 4
    assert "checkpoint_step_9.pt" in report.notes[0]


@pytest.mark.parametrize(
    "wrapped", [lambda weights: weights, lambda weights: {"model": weights, "iter_num": 3}]
)
def test_weights_of_another_program_are_shown(tmp_path: Path, wrapped: Any) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save(wrapped(nanogpt()), path)
    report = report_of(path, gradients=True)
    assert report.step is None
    assert report.layers == [0, 1, 2, 3, None]
    assert report.kinds == ["embedding", "q + k + v", "down", "head"]
    assert list(report.rms_grid.values()) == pytest.approx([0.5] * len(report.rms_grid))
    assert "no checkpoint of MiniGPT" in report.notes[0]


def test_safetensors_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = {name: weight.half() for name, weight in nanogpt().items() if weight.is_floating_point()}
    weights["transformer.h.2.mlp.c_proj.weight"] = torch.full((4, 16), 50.0).half()
    save_file(weights, path)
    (line,) = report_of(path).odd
    assert "layer 2, down" in line


class Own:
    """What no file of weights holds."""


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    torch.save({"model": Own()}, tmp_path / "pickled.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"steps": 3}, tmp_path / "bare.pt")
    torch.save(nanogpt(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(b"\1\2\3")
    (tmp_path / "checkpoint_step_3.pt").write_bytes(whole)
    wanted = {
        "pickled.pt": "more than plain data",
        "list.pt": "holds a list",
        "bare.pt": "holds no weights",
        "cut.pt": "damaged",
        "cut.safetensors": "no safetensors file",
        "gone.pt": "neither a file nor a run folder",
        "checkpoint_step_3.pt": "checkpoint",
    }
    for name, words in wanted.items():
        with pytest.raises(MiniGPTError, match=words) as caught:
            read_weights(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(MiniGPTError, match=r"no checkpoint_step_N\.pt"):
        read_weights(tmp_path / "empty")


def test_report_is_written_for_people_spreadsheets_and_programs(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    report = report_of(trained / "run", gradients=True)
    report.save(tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "**RMS of the weights**" in text
    assert "**Norm of the gradient**" in text
    rows = (tmp_path / "out" / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(report.tensors)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["step"] == 4
    assert results["tables"][0]["rows"][0]["name"] == "embedding.weight"
    assert (tmp_path / "out" / "heatmap.png").stat().st_size > 0
