"""MonitorCallback in the real Trainer, on a GPT-2 of two tiny layers."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers

from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.integrations import hugging_face
from minigpt.training_monitor.integrations.hugging_face import MonitorCallback
from tests.training_monitor.recording_sink import RecordingSink

VOCAB, LENGTH = 64, 16


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(params=[None, True], ids=["read-at-once", "read-late"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, and again one step late, as on CUDA."""
    monkeypatch.setattr(hugging_face, "LoopMonitor", partial(LoopMonitor, late=request.param))


def rows(count: int = 48) -> list[dict[str, Tensor]]:
    """Sequences that count upwards, from a place and by a stride that the model must infer."""
    made = [(torch.arange(LENGTH) * (1 + n % 3) + 7 * n) % VOCAB for n in range(count)]
    return [{"input_ids": ids, "labels": ids.clone()} for ids in made]


def trainer(folder: Path, *callbacks: Any, cls: Any = None, **settings: Any) -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    settings = {
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "max_grad_norm": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    } | settings
    args = transformers.TrainingArguments(str(folder), **settings)
    return (cls or transformers.Trainer)(
        model, args, train_dataset=rows(), eval_dataset=rows(8), callbacks=list(callbacks)
    )


def logged(done: Any, key: str) -> list[float]:
    return [entry[key] for entry in done.state.log_history if key in entry]


@pytest.mark.parametrize("bf16", [False, True])
def test_hugging_face_trainer_is_watched_in_silence_and_trains_bit_for_bit_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bf16: bool
) -> None:
    alone, watched = (
        trainer(tmp_path / name, *callbacks, bf16=bf16)
        for name, callbacks in (("alone", []), ("watched", [MonitorCallback()]))
    )
    # dropout draws from the one generator that both share
    for one in (alone, watched):
        transformers.set_seed(1)
        one.train()
    states = (one.model.state_dict() for one in (alone, watched))
    assert all(
        torch.equal(mine, its) for mine, its in zip(*(state.values() for state in states), strict=True)
    )
    assert "Anomaly" not in capsys.readouterr().out
    lines = (tmp_path / "watched/monitor/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert [record["loss"] for record in records] == pytest.approx(logged(alone, "loss"), rel=1e-5)
    assert [record["grad_norm"] for record in records] == pytest.approx(logged(alone, "grad_norm"), rel=1e-5)
    assert [record["lr"] for record in records] == pytest.approx(logged(alone, "learning_rate"))
    assert [record["scheduled_lr"] for record in records] == [record["lr"] for record in records]
    assert all(record["clipped"] == (record["grad_norm"] > 0.5) for record in records)
    assert records[0]["tokens"] == 2 * 4 * LENGTH
    assert (tmp_path / "watched/monitor/monitor_logs").is_dir()
    assert "training_step" not in vars(watched)


def test_hugging_face_norms_are_those_before_clipping(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    names = ("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1", "transformer.ln_f")

    class Checked(transformers.Trainer):
        def training_step(self, *arguments: Any, **named: Any) -> Tensor:
            loss: Tensor = super().training_step(*arguments, **named)
            if self.accelerator.sync_gradients:
                own = [(name, p.grad.double().square().sum()) for name, p in self.model.named_parameters()]
                seen.append(
                    {
                        group: sum(s for name, s in own if name.startswith(group)).sqrt().item()
                        for group in names
                    }
                )
            return loss

    kept = RecordingSink()
    done = trainer(tmp_path, MonitorCallback(sinks=[kept]), cls=Checked, max_grad_norm=0.01, max_steps=4)
    done.train()
    for signals, expected in zip(kept.signals, seen, strict=True):
        assert signals.group_norms == pytest.approx(expected, rel=1e-5)
        assert signals.clipped
        assert signals.grad_norm > 0.1


def test_hugging_face_evaluations_are_no_training_steps(tmp_path: Path) -> None:
    kept = RecordingSink()
    trainer(tmp_path, MonitorCallback(sinks=[kept]), eval_strategy="steps", eval_steps=2, max_steps=6).train()
    assert [signals.step for signals in kept.signals] == list(range(1, 7))
    batches = [signals.batch for signals in kept.signals]
    assert {batch.tokens for batch in batches if batch} == {2 * 4 * LENGTH}
    assert len({batch.hash for batch in batches if batch}) == 6
    # the labels are the inputs: Trainer's models shift them, and so does the monitor
    assert {batch.label_match for batch in batches if batch} == {1.0}


@pytest.mark.usefixtures("reads")
def test_hugging_face_training_goes_on_in_the_same_records_when_resumed(tmp_path: Path) -> None:
    first = trainer(tmp_path, MonitorCallback(), save_strategy="steps", save_steps=4, max_steps=6)
    first.train()
    assert json.loads((tmp_path / "checkpoint-4/training_monitor.json").read_text(encoding="utf-8"))
    watch = MonitorCallback()
    again = trainer(tmp_path, watch, save_strategy="steps", save_steps=4, max_steps=8)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    lines = (tmp_path / "monitor/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert [record["tokens_seen"] for record in records] == [128 * step for step in range(1, 9)]


class Poisoned(transformers.TrainerCallback):
    """Writes NaN into a weight of the second block after a number of steps."""

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 5:
            parts["model"].transformer.h[1].mlp.c_fc.weight.data[0, 0] = float("nan")


@pytest.mark.usefixtures("reads")
def test_hugging_face_training_is_stopped_with_a_verdict_when_numbers_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = trainer(tmp_path, MonitorCallback(), Poisoned(), max_steps=100)
    done.train()
    assert done.state.global_step < 20
    printed = capsys.readouterr().out
    assert "⚠️ Anomaly detected at step 6: nan_loss" in printed
    events = (tmp_path / "monitor/events.jsonl").read_text(encoding="utf-8")
    assert '"name": "stop"' in events


def test_hugging_face_training_goes_on_when_the_monitor_may_not_stop_it(tmp_path: Path) -> None:
    watch = MonitorCallback(sinks=[], stop=False)
    done = trainer(tmp_path, watch, Poisoned(), max_steps=16)
    done.train()
    assert done.state.global_step == 16


def test_hugging_face_monitor_is_off_and_says_so_when_gradients_are_sharded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = trainer(tmp_path, MonitorCallback(), max_steps=2)
    monkeypatch.setattr(type(done.accelerator), "distributed_type", "DistributedType.FSDP")
    done.train()
    assert "training monitor: off" in capsys.readouterr().out


def test_hugging_face_callback_refuses_a_caller_that_is_no_trainer() -> None:
    state = transformers.TrainerState()
    with pytest.raises(RuntimeError, match=r"not a transformers\.Trainer"):
        MonitorCallback().on_train_begin(None, state, transformers.TrainerControl())


class Spiked(transformers.TrainerCallback):
    """Somebody else's hand on the learning rate, for one step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 5:
            parts["optimizer"].param_groups[0]["lr"] *= 100


def test_hugging_face_reports_a_learning_rate_that_is_not_the_scheduled_one(tmp_path: Path) -> None:
    kept = RecordingSink()
    trainer(tmp_path, MonitorCallback(sinks=[kept]), Spiked(), max_steps=8).train()
    differing = [signals for signals in kept.signals if signals.lr != signals.scheduled_lr]
    assert [signals.step for signals in differing] == [6]
    assert differing[0].lr == pytest.approx(100 * (differing[0].scheduled_lr or 0))
    assert (6, "learning_rate_mismatch") in {(event.step, event.name) for event in kept.events}


def test_hugging_face_reports_a_block_that_the_optimizer_does_not_have(tmp_path: Path) -> None:
    kept = RecordingSink()
    done = trainer(tmp_path, MonitorCallback(sinks=[kept]), max_steps=4)
    part = [p for name, p in done.model.named_parameters() if ".h.1." not in name]
    done.optimizer = torch.optim.AdamW(part, lr=1e-3)
    done.train()
    facts = kept.signals[-1].parameters
    assert facts is not None
    own = dict(zip(facts.facts.names, facts.facts.optimized or (), strict=True))
    assert {name for name, optimized in own.items() if not optimized} == {n for n in own if ".h.1." in n}
    assert kept.signals[-1].update_ratios["transformer.h.1"] == 0.0
    assert "unoptimized_parameter" in {event.name for event in kept.events if event.interrupts}


def test_hugging_face_gradients_are_unscaled_when_a_scaler_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = RecordingSink()
    done = trainer(tmp_path, MonitorCallback(sinks=[kept]), max_steps=4, max_grad_norm=0.01)
    # as accelerate sets itself up for fp16, which it only does on a GPU
    done.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    done.accelerator.native_amp = True
    monkeypatch.setattr(type(done.accelerator), "mixed_precision", "fp16")
    done.train()
    norms = [signals.grad_norm for signals in kept.signals]
    assert norms == pytest.approx(logged(done, "grad_norm"), rel=1e-4)
    assert [signals.scaler_scale for signals in kept.signals] == [1024.0] * 4
    assert all(0.1 < norm < 10 for norm in norms)


@pytest.mark.parametrize("bf16", [False, True])
def test_hugging_face_module_that_made_the_first_nan_is_named(tmp_path: Path, bf16: bool) -> None:
    kept = RecordingSink()
    done = trainer(tmp_path, MonitorCallback(sinks=[kept]), max_steps=3, bf16=bf16)

    def spoil(module: Any, given: Any, made: Tensor) -> Tensor:
        good = torch.ones_like(made)
        good[1, 3] = float(done.state.global_step != 1)
        return made / good

    done.model.transformer.h[1].mlp.c_fc.register_forward_hook(spoil)
    done.train()
    found = next(event for event in kept.events if event.name == "nan_loss").data["evidence"]
    assert (found["phase"], found["module"]) == ("forward", "transformer.h.1.mlp.c_fc (div)")
    assert (found["row"], found["rows"], found["micro_batch"], found["micro_batches"]) == (1, 4, 1, 2)
    assert len(found["token_head"].split()) == 8
