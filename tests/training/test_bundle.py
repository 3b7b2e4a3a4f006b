"""At the first NaN the run says who made it and from which text, and leaves a bundle to do the step again."""

import json
from pathlib import Path

import pytest
import torch

from minigpt.data.loader import Batch
from minigpt.errors import CheckpointError
from minigpt.training.bundle import bundles_of, last_records, read_bundle
from minigpt.training.folder import refuse_foreign
from minigpt.training.forensics import Forensics
from minigpt.training.loop import train
from minigpt.training.passage import struck
from minigpt.training.replay import replay
from minigpt.training_monitor.blame import Blame
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from tests.training.poisoned import (
    FIRST_BAD,
    Poison,
    PoisonAfter,
    backward_only,
    nothing,
    one_activation,
    too_large_for_fp16,
    trained,
    weight_row,
)
from tests.training.tiny_run import Workshop, assert_same, metrics_of, opened_run


def first_anomaly(events: list[Event], *names: str) -> Event:
    return next(event for event in events if event.kind == "anomaly" and event.name in names)


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize(
    ("poison", "name", "phase", "module"),
    [
        (weight_row, "nan_loss", "weights", "blocks.1.mlp.down"),
        (one_activation, "nan_loss", "forward", "blocks.0.mlp.gate"),
        (backward_only, "non_finite_gradient", "backward", "blocks.1.attention.query"),
    ],
)
def test_first_nan_is_traced_to_what_made_it(
    poison: Poison, name: str, phase: str, module: str, workshop: Workshop, run_dir: Path
) -> None:
    sinks = trained(workshop, run_dir, poison)
    event = first_anomaly(sinks.events, name)
    evidence = event.data["evidence"]
    assert event.step == FIRST_BAD
    assert (evidence["phase"], evidence["module"]) == (phase, module)
    path = Path(evidence["bundle"])
    assert path == run_dir / f"crash_step_{FIRST_BAD}.pt"
    bundle = read_bundle(path)
    assert (bundle.step, bundle.reason, bundle.weights_exact) == (FIRST_BAD, name, True)
    assert Blame(**bundle.blame).phase == phase
    assert [record["step"] for record in bundle.records] == list(range(1, FIRST_BAD))
    assert bundle.identity["config"]["model"]["num_layers"] == 2
    # The step's own batches: the data order is a pure function of the position.
    windows = [index for batch in bundle.micro_batches for index in batch.window_indices]
    assert len(set(windows)) == 8


def test_evidence_names_the_text_that_was_read(workshop: Workshop, run_dir: Path) -> None:
    evidence = first_anomaly(trained(workshop, run_dir, one_activation).events, "nan_loss").data["evidence"]
    assert (evidence["sequences_hit"], evidence["sequences"]) == (1, 4)
    text = (workshop.folder / "corpus" / evidence["document"]).read_text()
    start = evidence["offset"] - 7  # the poison sits at the seventh token
    assert "".join(text[start : start + 16].split()) == "".join(evidence["text_head"].split())
    bundle = read_bundle(run_dir / f"crash_step_{FIRST_BAD}.pt")
    assert bundle.passages[0][2].text == evidence["text_head"]
    assert (bundle.passages[0][2].document, bundle.passages[0][2].offset) == (evidence["document"], start)


def test_one_incident_leaves_one_bundle_and_a_run_two_at_most(workshop: Workshop, run_dir: Path) -> None:
    trained(workshop, run_dir, weight_row)
    assert [path.name for path in bundles_of(run_dir)] == [f"crash_step_{FIRST_BAD}.pt"]
    (run_dir / "crash_step_1.pt").write_bytes(b"")
    (run_dir / f"crash_step_{FIRST_BAD}.pt").unlink()
    (run_dir / "crash_step_2.pt").write_bytes(b"")
    sinks = trained(workshop, run_dir, weight_row)
    evidence = first_anomaly(sinks.events, "nan_loss").data["evidence"]
    assert evidence["module"] == "blocks.1.mlp.down"
    assert "bundle" not in evidence
    assert len(bundles_of(run_dir)) == 2
    refuse_foreign(run_dir)


def test_calibration_of_the_scaler_leaves_no_bundle(workshop: Workshop, run_dir: Path) -> None:
    sinks = trained(workshop, run_dir, nothing, "training.mixed_precision=fp16", "training.max_steps=4")
    assert not any("crash" in event.name for event in sinks.events)
    assert bundles_of(run_dir) == []


def test_scaler_and_precision_are_in_the_bundle_when_fp16_overflows(
    workshop: Workshop, run_dir: Path
) -> None:
    sinks = trained(workshop, run_dir, too_large_for_fp16, "training.mixed_precision=fp16")
    evidence = first_anomaly(sinks.events, "nan_loss").data["evidence"]
    assert (evidence["phase"], evidence["dtype"]) == ("forward", "float16")
    assert evidence["module"].startswith("blocks.1.mlp")
    bundle = read_bundle(run_dir / f"crash_step_{FIRST_BAD}.pt")
    assert bundle.precision == "fp16"
    assert bundle.signals["scaler_scale"] == 65536.0


def test_run_goes_on_when_the_bundle_cannot_be_written(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.training.forensics.write_bundle", full)
    sinks = trained(workshop, run_dir, one_activation)
    assert "bundle" not in first_anomaly(sinks.events, "nan_loss").data["evidence"]
    notes = [event.text for event in sinks.events if event.name == "crash_bundle"]
    assert "No space left" in notes[0]


def test_looks_leave_the_run_bit_equal(workshop: Workshop, tmp_path: Path) -> None:
    settings = ("model.dropout=0.2", "training.eval_every_steps=100")
    plain, looked, resumed = (tmp_path / name for name in ("plain", "looked", "resumed"))
    trained(workshop, plain, nothing, *settings, "monitor.look_every_steps=null")
    sinks = trained(workshop, looked, nothing, *settings, "monitor.look_every_steps=1")
    assert all(signals.look is not None and signals.look.activation_rms for signals in sinks.signals)
    one, other = (torch.load(folder / "checkpoint_step_12.pt") for folder in (plain, looked))
    for name, value in one["model_state_dict"].items():
        assert torch.equal(value, other["model_state_dict"][name])
    assert torch.equal(one["rng"][0]["torch"], other["rng"][0]["torch"])
    losses = [[record["loss"] for record in metrics_of(folder)] for folder in (plain, looked)]
    assert losses[0] == losses[1]
    with opened_run(
        workshop.config(*settings, "monitor.look_every_steps=1"),
        resumed,
        torch.load(looked / "checkpoint_step_8.pt"),
    ) as run:
        run.sinks = again = PoisonAfter(run, nothing)
        train(run)
    assert_same(torch.load(resumed / "checkpoint_step_12.pt")["model_state_dict"], other["model_state_dict"])
    assert [signals.look for signals in again.signals] == [signals.look for signals in sinks.signals[8:]]


def test_step_that_ended_the_run_is_kept_when_its_numbers_are_finite(
    workshop: Workshop, run_dir: Path
) -> None:
    with opened_run(workshop.config(), run_dir) as run:
        forensics = Forensics(run)
        forensics.begin(run.loader.next_step())
        run.position.step += 1
        signals = StepSignals(step=1, loss=9.0, grad_norm=5.0, tokens=128)
        forensics.keep_step(signals, "loss_divergence")
        (note,) = forensics.take_notes()
    assert f"minigpt replay {run_dir / 'crash_step_1.pt'}" in note.text
    bundle = read_bundle(run_dir / "crash_step_1.pt")
    # The update was applied: these are the weights after it, and the bundle says so.
    assert (bundle.reason, bundle.blame, bundle.weights_exact) == ("loss_divergence", {}, False)
    told = list(replay(run_dir / "crash_step_1.pt", torch.device("cpu"), None))
    assert "one update late" in told[-1]


def test_step_that_begins_again_is_examined_as_it_was_begun_last(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config(), run_dir) as run:
        forensics = Forensics(run)
        first, second = run.loader.next_step(), run.loader.next_step()
        forensics.begin(first)
        forensics.begin(second)
        run.position.step += 1
        forensics.keep_step(StepSignals(step=1, loss=9.0, grad_norm=5.0, tokens=128), "loss_divergence")
    (batch, *_) = read_bundle(run_dir / "crash_step_1.pt").micro_batches
    assert batch.window_indices == second.micro_batches[0].window_indices


@pytest.mark.parametrize(
    ("index", "shape", "expected"),
    [
        ((2, 5, 1), (4, 8, 3), (2, 5)),
        ((2, 1, 5, 0), (4, 2, 8, 3), (2, 5)),
        ((21, 0), (32, 64), (2, 5)),
        ((), (), (0, 0)),
        ((1, 1), (64, 64), (0, 0)),
    ],
)
def test_struck_sequence_and_token_are_read_off_the_tensor(
    index: tuple[int, ...], shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    tokens = torch.zeros(4, 8, dtype=torch.long)
    batch = Batch(tokens, tokens, 0, 0, (0, 1, 2, 3))
    assert struck(Blame("forward", index=index, shape=shape), batch) == expected


def test_last_records_are_read_from_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_records(path) == []
    path.write_text(
        "".join(f'{{"step": {step}}}\n' for step in range(1, 2001)) + '{"step": 20', encoding="utf-8"
    )
    assert [record["step"] for record in last_records(path, 3)] == [1999, 2000]


def test_reading_says_what_is_wrong_when_it_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        read_bundle(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_bundle(tmp_path)
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(CheckpointError, match=r"text\.pt is damaged"):
        read_bundle(tmp_path / "text.pt")
    torch.save({"model_state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="is a checkpoint, not a crash bundle"):
        read_bundle(tmp_path / "checkpoint.pt")
    torch.save({"kind": "minigpt crash bundle", "format": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="format 99"):
        read_bundle(tmp_path / "newer.pt")
    torch.save({"kind": "minigpt crash bundle", "format": 1}, tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match="not a whole crash bundle"):
        read_bundle(tmp_path / "half.pt")


def test_a_batch_without_variety_is_told_with_its_worst_text(workshop: Workshop, run_dir: Path) -> None:
    corpus = workshop.folder / "corpus"
    size = sum(path.stat().st_size for path in corpus.iterdir())
    (corpus / "blanks.txt").write_text(" " * 4 * size, encoding="utf-8")
    assert workshop.train(run_dir, "training.tokens_per_step=64", "training.max_steps=40") == 0
    records = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    texts = [record["text"] for record in records if record.get("name") == "degenerate_batch"]
    assert "the most monotonous text is blanks.txt from its token " in texts[0]
