"""Whole runs in this process: against a loop written anew, against pinned numbers, and what they leave behind."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.data.loader import BatchLoader
from minigpt.data.prepare import prepare
from minigpt.data.windows import Windows
from minigpt.errors import CheckpointError
from minigpt.model.gpt import GPT
from minigpt.model.loss import LossSums
from minigpt.training.build import build_model
from minigpt.training.loop import train
from tests.training.tiny_run import Workshop, curves_of, metrics_of, opened_run, read_lines

# The losses of 20 steps of the tiny run on CPU in fp32. A change here is a change of the training itself: of the data's
# order, the initial weights, the model, the optimizer or the schedule. If it is meant, print them anew:
# `python -m pytest tests/training/test_loop.py -k golden` shows the list found.
# fmt: off
GOLDEN = [
    5.76532, 5.74362, 5.60659, 5.39978, 5.10312, 4.88892, 4.62497, 4.41097, 4.19226, 4.01454,
    3.85992, 3.73895, 3.58938, 3.52195, 3.44547, 3.35594, 3.38154, 3.30329, 3.29649, 3.27339,
]
# fmt: on


def test_logged_losses_are_those_of_a_plain_loop(workshop: Workshop, run_dir: Path) -> None:
    """The same model and batches in the PyTorch loop of any tutorial: one large batch, a mean loss, no extras."""
    config = workshop.config("model.tie_embeddings=false", "schedule.min_lr_ratio=0")
    assert workshop.train(run_dir, "model.tie_embeddings=false", "schedule.min_lr_ratio=0") == 0

    prepared = prepare(config.data, progress=False)
    model = build_model(config, prepared.tokenizer().vocab_size, torch.device("cpu"))
    decayed = [p for name, p in model.named_parameters() if "attention." in name or "mlp." in name]
    others = [p for name, p in model.named_parameters() if "attention." not in name and "mlp." not in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        foreach=False,
    )
    windows = Windows(prepared.train, 16)
    loader = BatchLoader(windows, seed=0, micro_batch_size=8, grad_accum_steps=1)
    losses, norms = [], []
    for step in range(12):
        (batch,) = loader.step_at(8 * step).micro_batches
        lr = 0.01 * ((step + 1) / 4 if step < 4 else (1 + math.cos(math.pi * (step - 3) / 8)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        logits = model(batch.inputs_BT)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())

    logged = metrics_of(run_dir)
    assert [record["loss"] for record in logged] == pytest.approx(losses, rel=1e-5)
    assert [record["grad_norm"] for record in logged] == pytest.approx(norms, rel=1e-4)
    assert [record["clipped"] for record in logged] == [norm > 1 for norm in norms]


def test_golden_losses_come_out_again(workshop: Workshop, run_dir: Path) -> None:
    workshop.train(run_dir, "training.max_steps=20")
    losses = [round(record["loss"], 5) for record in metrics_of(run_dir)]
    # Other CPUs add up in another order.
    assert losses == pytest.approx(GOLDEN, rel=1e-4), losses


def test_first_loss_is_that_of_guessing_and_falls(workshop: Workshop, run_dir: Path) -> None:
    workshop.train(run_dir, "training.max_steps=20")
    losses = [record["loss"] for record in metrics_of(run_dir)]
    assert losses[0] == pytest.approx(math.log(320), rel=0.02)
    assert losses[-1] < losses[0] - 2


def test_nan_step_is_counted_as_skipped_and_the_run_goes_on(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config(), run_dir) as run:

        def poison_third_step(module: nn.Module, arguments: object, sums: LossSums) -> LossSums:
            return LossSums(*(value * float("nan") for value in sums)) if run.position.step == 2 else sums

        run.model.register_forward_hook(poison_third_step)
        assert train(run) == "finished"
    records = metrics_of(run_dir)
    assert [record["step"] for record in records if record["update_skipped"]] == [3]
    assert records[2]["loss"] == "NaN"
    assert not any(record["scaler_overflow"] for record in records)
    assert [name for name, _ in anomalies(run_dir)] == ["nan_loss"] * len(anomalies(run_dir))
    assert (records[2]["tokens_seen"], records[-1]["step"]) == (3 * 128 - 13, 12)
    assert all(math.isfinite(record["loss"]) for record in records[3:])
    checkpoint = torch.load(run_dir / "checkpoint_step_12.pt")
    assert all(weight.isfinite().all() for weight in checkpoint["model_state_dict"].values())
    # Twelve steps less the one that was called off.
    assert {state["step"].item() for state in checkpoint["optimizer_state_dicts"][0]["state"].values()} == {
        11
    }


def anomalies(run_dir: Path) -> list[tuple[str, int]]:
    events = read_lines(run_dir / "events.jsonl")
    return [(event["name"], event["step"]) for event in events if event["kind"] == "anomaly"]


def test_run_stops_with_its_state_saved_when_every_batch_is_nan(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config("training.max_steps=50"), run_dir) as run:
        run.model.register_forward_hook(
            lambda module, arguments, sums: LossSums(*(value * float("nan") for value in sums))
        )
        outcome = train(run)
        assert not isinstance(outcome, str)
        assert outcome.cause == "nan_loss"
        step = run.position.step
    assert step < 50
    saved = torch.load(run_dir / f"checkpoint_step_{step}.pt")["model_state_dict"]
    first = torch.load(run_dir / "checkpoint_step_0.pt") if 0 in checkpoints_by_step(run_dir) else None
    assert all(weight.isfinite().all() for weight in saved.values())
    assert first is None or all(torch.equal(saved[name], first["model_state_dict"][name]) for name in saved)


def test_grad_flow_check_is_logged_every_so_many_steps(workshop: Workshop, run_dir: Path) -> None:
    # Clipping by this norm would turn gradients into zeros.
    settings = ("training.check_grad_flow=true", "training.check_grad_flow_every=5")
    workshop.train(run_dir, *settings, "training.max_grad_norm=1e-44")
    curves = curves_of(run_dir)
    names = len(torch.load(run_dir / "checkpoint_step_12.pt")["model_state_dict"])
    assert curves["grad_check/ok_params"] == [(5, names), (10, names)]
    assert curves["grad_check/zero_params"] == curves["grad_check/none_params"] == [(5, 0), (10, 0)]
    log = Path("logs/training.log").read_text(encoding="utf-8")
    assert log.count("grad_check/ok_params") == 2


def test_log_and_curves_tell_the_same_when_users_grep_them(workshop: Workshop, run_dir: Path) -> None:
    workshop.train(run_dir)
    log = Path("logs/training.log").read_text(encoding="utf-8").splitlines()
    steps = [line.split(":")[0] for line in log if "Loss:" in line]
    assert steps == ["Step 1", "Step 4", "Step 8", "Step 12"]
    assert all("grad_norm=" in line and "lr=" in line for line in log if "Loss:" in line)
    curves, records = curves_of(run_dir), metrics_of(run_dir)
    assert dict(curves["train/loss"]) == pytest.approx({r["step"]: r["loss"] for r in records})
    assert [step for step, _ in curves["validation/loss"]] == [5, 10, 12]


def test_best_and_last_checkpoints_stay_when_the_run_gets_worse(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config("training.max_steps=20", "training.eval_every_steps=4"), run_dir) as run:

        def uphill(module: nn.Module, arguments: object, sums: LossSums | Tensor) -> LossSums | Tensor:
            if isinstance(sums, Tensor) or not module.training or run.position.step < 4:
                return sums  # logits: the monitor looks at a forward
            return LossSums(-sums.total, sums.cross_entropy)

        run.model.register_forward_hook(uphill)
        train(run)
        assert (run.position.best_step, run.position.evaluated_step) == (4, 20)
    assert list(checkpoints_by_step(run_dir)) == [4, 16, 20]


def test_run_ends_in_one_line_with_all_checkpoints_when_the_disk_is_full(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_run(workshop.config(), run_dir) as run:
        save = torch.save

        def full_from_step_8(content: dict[str, object], path: Path) -> None:
            if content["step"] == 8:
                raise OSError(28, "No space left on device")
            save(content, path)

        monkeypatch.setattr(torch, "save", full_from_step_8)
        with pytest.raises(CheckpointError, match="No space left on device"):
            train(run)
    assert list(checkpoints_by_step(run_dir)) == [4, 5]
    assert not [path for path in (run_dir).iterdir() if ".tmp" in path.name]


def test_checkpoint_is_plain_data_under_bare_names(workshop: Workshop, run_dir: Path) -> None:
    workshop.train(run_dir, "training.mixed_precision=fp16")
    checkpoint = torch.load(run_dir / "checkpoint_step_12.pt")
    model = GPT(workshop.config().model, 320)
    model.load_state_dict(checkpoint["model_state_dict"])
    assert set(checkpoint["model_state_dict"]) == {name for name, _ in model.named_parameters()}
    assert all(p.dtype == torch.float32 and p.norm() > 0 for p in checkpoint["model_state_dict"].values())
    assert types_in(checkpoint) <= {dict, list, tuple, torch.Tensor, str, int, float, bool, type(None)}
    assert checkpoint["config"]["training"]["mixed_precision"] == "fp16"
    assert checkpoint["overrides"] == ["training.mixed_precision=fp16"]
    assert set(checkpoint["environment"]) >= {"python", "torch", "numpy", "minigpt"}


def types_in(value: object) -> set[type]:
    """The exact types of a value and all that it holds; a state dict may be an OrderedDict."""
    if isinstance(value, dict):
        return {dict}.union(*(types_in(entry) for pair in value.items() for entry in pair))
    if isinstance(value, list | tuple):
        return {type(value)}.union(*(types_in(entry) for entry in value))
    return {type(value)}
