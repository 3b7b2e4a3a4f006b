#!/usr/bin/env python3
"""Which surroundings change the bits of a training on this machine: each is tried, and the weights are compared.

python scripts/measure_rounding.py                 all of them, fp32 and bf16; 10 seconds and more each
python scripts/measure_rounding.py --only threads
"""

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.same_run import compare_runs
from minigpt.lab.verify_resume.leg import Leg
from minigpt.lab.verify_resume.process import COMMAND, run_leg
from minigpt.training.interrupt import Interrupt

STEPS = 12
CONFIG = """
model: {num_layers: 2, hidden_size: 128, num_heads: 4, context_length: 128, dropout: 0.1}
data: {source: python-stdlib, max_documents: 40, tokenizer: {kind: bytes}}
training: {max_steps: 1000, tokens_per_step: 2048, micro_batch_size: 8, sample_tokens: 0, device: cpu}
checkpoint: {every_steps: 1000}
"""


@dataclass(frozen=True)
class Surroundings:
    """What is other than in the run that it is compared with."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    before: str = ""
    """Python to run before the training."""
    beside: str | None = None
    """The name of the run to compare with; None: the plain one."""


def tried(folder: Path) -> Iterator[Surroundings]:
    """Everything that is tried, after the plain run: one thread, eager."""
    yield Surroundings("the same again")
    for threads in ("2", "4"):
        yield Surroundings(f"threads {threads}", {"OMP_NUM_THREADS": threads})
    yield Surroundings("threads 4, again", {"OMP_NUM_THREADS": "4"}, beside="threads 4")
    for capability in ("default", "avx2", "avx512"):
        yield Surroundings(f"cpu_capability {capability}", {"ATEN_CPU_CAPABILITY": capability})
    for isa in ("AVX2", "AVX512_CORE"):
        yield Surroundings(f"ONEDNN_MAX_CPU_ISA {isa}", {"ONEDNN_MAX_CPU_ISA": isa})
    for branch in ("COMPATIBLE", "AVX2"):
        yield Surroundings(f"MKL_CBWR {branch}", {"MKL_CBWR": branch})
    yield Surroundings("mkldnn off", before="torch.backends.mkldnn.enabled = False")
    yield Surroundings("matmul_precision medium", before="torch.set_float32_matmul_precision('medium')")
    yield Surroundings("deterministic off", overrides=("training.deterministic=off",))
    yield Surroundings("micro_batch_size 4", overrides=("training.micro_batch_size=4",))
    yield Surroundings("interop_threads 1", before="torch.set_num_interop_threads(1)")
    yield Surroundings("PYTHONHASHSEED 1", {"PYTHONHASHSEED": "1"})
    yield Surroundings("MALLOC_ARENA_MAX 1", {"MALLOC_ARENA_MAX": "1"})
    yield Surroundings("without the monitor", overrides=("monitor.enabled=false",))
    yield Surroundings("evaluating every 3 steps", overrides=("training.eval_every_steps=3",))
    cold = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    on = ("training.compile=on",)
    yield Surroundings("compiled, cold cache", cold, on)
    yield Surroundings("compiled, warm cache", cold, on, beside="compiled, cold cache")
    for name, variables in (
        ("another cold cache", {"TORCHINDUCTOR_CACHE_DIR": str(folder / "second")}),
        ("max_autotune", {**cold, "TORCHINDUCTOR_MAX_AUTOTUNE": "1"}),
        ("without its cache", {**cold, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}),
    ):
        yield Surroundings(f"compiled, {name}", variables, on, beside="compiled, cold cache")
    for threads in ("2", "4"):
        two = {"OMP_NUM_THREADS": threads}
        compiled = f"compiled, threads {threads}"
        yield Surroundings(compiled, {**cold, **two}, on, beside="compiled, cold cache")
        for number in range(1, 4):
            yield Surroundings(f"{compiled}, again {number}", {**cold, **two}, on, beside=compiled)
        fresh = {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"fresh{threads}"), **two}
        yield Surroundings(f"{compiled}, cold cache", fresh, on, beside=compiled)
        off = (*on, "training.deterministic=off")
        yield Surroundings(f"{compiled}, not deterministic", {**cold, **two}, off, beside=compiled)
        yield Surroundings(
            f"{compiled}, not deterministic, again",
            {**cold, **two},
            off,
            beside=f"{compiled}, not deterministic",
        )


def trained(surroundings: Surroundings, folder: Path, precision: str) -> Path:
    """The folder of a run of a few steps in these surroundings."""
    run_dir = folder / f"{precision}_{surroundings.name.replace(' ', '_').replace(',', '')}"
    overrides = (f"training.mixed_precision={precision}", "training.compile=off", *surroundings.overrides)
    leg = Leg(str(folder / "config.yaml"), overrides, str(run_dir), False, STEPS, signal.SIGTERM)
    program = f"import sys, torch; {surroundings.before}; from minigpt.lab.verify_resume.leg import main; "
    command: tuple[str, ...] = (sys.executable, "-c", program + "sys.exit(main(sys.argv[1]))")
    variables = {"OMP_NUM_THREADS": "1", "MINIGPT_CACHE": str(folder / "cache"), **surroundings.variables}
    command = command if surroundings.before else COMMAND
    run_leg(run_dir.name, leg, STEPS, Interrupt(), environment=variables, command=command)
    return run_dir


def outcome(plain: Path, other: Path) -> str:
    """Whether the two are the same run, and from which step on they are not."""
    found = compare_runs(plain, other, STEPS)
    weights = [difference for difference in found.in_state if difference.place.startswith("weights")]
    if found.is_same:
        return "same bits"
    if not weights:
        what = (found.in_records or found.in_state)[0]
        return f"same weights, but {what}"
    apart = weights[0].how.split(" at most by ")[-1]
    return f"other bits from step {found.first_step} (weights by {apart})"


def main() -> None:
    """Prints a line for each of the surroundings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", nargs="+", default=["off", "bf16"], choices=["off", "bf16", "fp16"])
    parser.add_argument("--only", default="", help="those with this in their name")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
        for precision in arguments.precision:
            runs = {"plain": trained(Surroundings("plain"), folder, precision)}
            for surroundings in tried(folder / precision):
                if arguments.only in surroundings.name:
                    runs[surroundings.name] = trained(surroundings, folder, precision)
                    beside = surroundings.beside if surroundings.beside in runs else "plain"
                    said = outcome(runs[str(beside)], runs[surroundings.name])
                    print(f"{precision:<5} {surroundings.name:<45} beside {beside:<40} {said}", flush=True)


if __name__ == "__main__":
    main()
