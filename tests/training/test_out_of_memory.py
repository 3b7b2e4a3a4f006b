"""Out of memory: the run goes on with smaller micro-batches, or ends with the setting that fits; nothing is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt.checkpoint.load import load_checkpoint, load_newest
from minigpt.errors import OutOfMemoryError
from minigpt.optim.build import apply_update
from minigpt.training.loop import train
from minigpt.training.out_of_memory import UpdateOutOfMemoryError, shortage_of
from minigpt.training.run import Run
from tests.training.tiny_run import Workshop, opened_run, read_lines

AUTO = "training.micro_batch_size=auto"
CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
)


def cpu_error() -> RuntimeError:
    return RuntimeError(CPU_WORDS + "allocate 1048576 bytes. Error code 12 (Cannot allocate memory)")


def cuda_error() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of"
    )


@contextmanager
def room_for(
    run: Run, sequences: int, *, from_step: int = 1, in_backward: bool = False
) -> Iterator[list[int]]:
    """A machine on which a forward of more than so many sequences fails; yields the sizes that were tried."""
    tried: list[int] = []

    def refuse(gradient: Tensor) -> None:
        raise cpu_error()

    def before(module: object, arguments: tuple[Tensor, ...]) -> None:
        tried.append(len(arguments[0]))
        if len(arguments[0]) > sequences and run.position.step + 1 >= from_step and not in_backward:
            raise cpu_error()

    def after(module: object, arguments: tuple[Tensor, ...], output: Any) -> None:
        if (
            len(arguments[0]) > sequences
            and run.position.step + 1 >= from_step
            and in_backward
            and output.total.requires_grad
        ):
            output.total.register_hook(refuse)

    handles = run.model.register_forward_pre_hook(before), run.model.register_forward_hook(after)
    try:
        yield tried
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (cpu_error(), 1 << 20),
        (cuda_error(), int(2.5 * 2**30)),
        (MemoryError(), None),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 8 GB). Tried to allocate 512.00 MB on"),
            512 << 20,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
    ],
)
def test_shortage_is_known_by_what_allocators_say(error: Exception, wanted: int | None) -> None:
    found = shortage_of(error)
    assert found is not None
    assert found.wanted_bytes == wanted


def test_shortage_is_not_seen_in_other_errors() -> None:
    assert shortage_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert shortage_of(ValueError("out of memory")) is None


@pytest.mark.parametrize("precision", ["off", "fp16"])
@pytest.mark.parametrize("in_backward", [False, True])
def test_run_goes_on_with_smaller_micro_batches_when_auto(
    precision: str, in_backward: bool, workshop: Workshop, run_dir: Path
) -> None:
    overrides = (AUTO, f"training.mixed_precision={precision}", "model.dropout=0.1")
    with opened_run(workshop.config(*overrides), run_dir) as run:
        assert run.micro_batch_size == 8
        with room_for(run, 2, from_step=6, in_backward=in_backward) as tried:
            assert train(run) == "finished"
        assert run.micro_batch_size == 2
        assert set(tried) >= {8, 4, 2}
    workshop.train(run_dir / "undisturbed", *overrides)
    tokens = [
        [(record["step"], record["tokens"]) for record in read_lines(folder / "metrics.jsonl")]
        for folder in (run_dir, run_dir / "undisturbed")
    ]
    assert tokens[0] == tokens[1]
    told = [record for record in read_lines(run_dir / "events.jsonl") if record["name"] == "out_of_memory"]
    assert [(record["data"]["before"], record["data"]["micro_batch_size"]) for record in told] == [
        (8, 4),
        (4, 2),
    ]
    assert "1.00 MiB more were wanted" in told[0]["text"]
    assert load_newest(run_dir).state["micro_batch_size"] == 2


def test_run_that_shrank_equals_one_that_always_was_small(workshop: Workshop, tmp_path: Path) -> None:
    """From the very step on at which memory ran out, to the last bit: nothing of the failed attempt is left."""
    with (
        opened_run(workshop.config(AUTO, "model.dropout=0.1"), tmp_path / "shrinks") as run,
        room_for(run, 4),
    ):
        train(run)
        shrunk = {name: value.clone() for name, value in run.model.state_dict().items()}
    small = "training.micro_batch_size=4"
    with opened_run(workshop.config(small, "model.dropout=0.1"), tmp_path / "small") as run:
        train(run)
        for name, value in run.model.state_dict().items():
            assert torch.equal(value, shrunk[name]), name


def test_resumed_run_keeps_the_smaller_micro_batch(workshop: Workshop, tmp_path: Path) -> None:
    keeping = workshop.config(AUTO, "checkpoint.keep_last=9")
    with opened_run(keeping, tmp_path / "straight") as run, room_for(run, 2, from_step=3):
        train(run)
    saved = load_checkpoint(tmp_path / "straight" / "checkpoint_step_8.pt")
    with opened_run(workshop.config(AUTO), tmp_path / "resumed", saved) as run:
        assert run.micro_batch_size == 2
        train(run)
    ends = [load_newest(tmp_path / name).state["model_state_dict"] for name in ("straight", "resumed")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_evaluation_that_does_not_fit_is_made_in_smaller_batches(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config(AUTO), run_dir) as run:

        def before(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if not torch.is_grad_enabled() and len(arguments[0]) > 4:
                raise cpu_error()

        run.model.register_forward_pre_hook(before)
        assert train(run) == "finished"
    events = read_lines(run_dir / "events.jsonl")
    assert [record["step"] for record in events if record["kind"] == "evaluation"] == [5, 10, 12]
    assert any("in the evaluation after step 5" in record["text"] for record in events)


def test_run_with_a_size_of_its_own_is_saved_and_told_what_fits(workshop: Workshop, run_dir: Path) -> None:
    config = workshop.config()
    with (
        opened_run(config, run_dir) as run,
        room_for(run, 2, from_step=7),
        pytest.raises(OutOfMemoryError) as caught,
    ):
        train(run)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("out of memory in step 7: 1.00 MiB more were wanted with ")
    assert "at training.micro_batch_size = 4 a step needs about" in line
    assert "--set training.micro_batch_size=2 (or auto) needs about" in line
    assert line.endswith("(the run is saved at step 6; go on with --resume)")
    newest = load_newest(run_dir)
    assert newest.state["step"] == 6
    with opened_run(config, run_dir / "resumed", newest.state) as run:
        assert train(run) == "finished"


def test_single_sequence_that_does_not_fit_ends_the_run_with_a_lever(
    workshop: Workshop, run_dir: Path
) -> None:
    with (
        opened_run(workshop.config(AUTO), run_dir) as run,
        room_for(run, 0),
        pytest.raises(OutOfMemoryError, match=r"--set training\.activation_checkpointing=full needs about"),
    ):
        train(run)


def test_half_done_update_is_neither_tried_again_nor_saved(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(optimizers: Any, call_off: Tensor) -> None:
        if run.position.step == 6:
            raise cpu_error()
        apply_update(optimizers, call_off)

    monkeypatch.setattr("minigpt.training.step.apply_update", failing)
    with (
        opened_run(workshop.config(AUTO), run_dir) as run,
        pytest.raises(OutOfMemoryError, match=r"go on with --resume, this step was not finished") as caught,
    ):
        train(run)
    assert not caught.value.between_steps
    assert load_newest(run_dir).state["step"] == 5  # the best so far, saved on the way


def test_other_errors_of_a_step_are_left_alone(workshop: Workshop, run_dir: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with opened_run(workshop.config(AUTO), run_dir) as run:
        run.model.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="a bug"):
            train(run)


def test_update_that_ran_out_of_memory_is_known_as_such() -> None:
    def half_done(cause: Callable[[], Exception]) -> UpdateOutOfMemoryError:
        try:
            raise UpdateOutOfMemoryError from cause()
        except UpdateOutOfMemoryError as error:
            return error

    found = shortage_of(half_done(cuda_error))
    assert found is not None
    assert (found.wanted_bytes, found.during_update) == (int(2.5 * 2**30), True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_command_that_does_not_fit_says_so_in_one_line(workshop: Workshop) -> None:
    """A real limit: weights, gradients and moments are larger than what the process may still have."""
    program = """
import resource, sys
import torch, minigpt.training.pretrain
from minigpt.cli.main import run

pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (600 << 20), -1))
sys.exit(run(sys.argv[1:]))
"""
    wide = ("model.hidden_size=1024", "model.intermediate_size=8192", "model.num_layers=2")
    process = workshop.start(workshop.folder / "run", *wide, program=program)
    said, _ = process.communicate()
    assert process.returncode == 2, said
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "out of memory" in errors[0]
