"""The process of one contender: started by path, so that the package `minigpt` can be another version's."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any


def main() -> None:
    """Train as `sys.argv[1]` (JSON: name, overrides, terms, folder) says, at the pace of standard input.

    Answers are JSON lines on what was standard output; what libraries print there goes to standard error.
    """
    began_at = time.perf_counter()
    order = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.chdir(order["folder"])
    try:
        _take_part(order, answers, began_at)
    except Exception as error:
        # A user's mistake and a peer's crash alike: the parent has one line, standard error the whole.
        line = (str(error).strip().splitlines() or ["without a word"])[0][:300]
        kind = (
            ""
            if "MiniGPTError" in {base.__name__ for base in type(error).__mro__}
            else f"{type(error).__name__}: "
        )
        answers.write(json.dumps({"error": kind + line}) + "\n")
        answers.flush()
        raise


def _take_part(order: dict[str, Any], answers: IO[str], began_at: float) -> None:
    _bench_of_this_tree()
    import torch

    from minigpt.compiled_code import keep_compiled_code_private
    from minigpt.distributed.device import resolve_device
    from minigpt.lab.bench.gate import Gate, Stopped
    from minigpt.lab.bench.shapes import Terms

    keep_compiled_code_private()
    terms = Terms.from_json(order["terms"])
    terms = replace(terms, device=str(resolve_device(terms.device)))
    train = _loop_of(order["name"], order["overrides"])
    gate = Gate(sys.stdin, answers, torch.device(terms.device), began_at)
    try:
        train(terms, gate)
    except Stopped:
        answers.close()
        # A half-trained run has nothing to tidy up, and a compiler's threads may outlive their pool.
        os._exit(0)


def _bench_of_this_tree() -> None:
    """Has `minigpt.lab.bench` be the one beside this file, whichever version the rest of the package is."""
    import minigpt.lab

    lab = str(Path(__file__).resolve().parent.parent)
    minigpt.lab.__path__ = [lab, *(place for place in minigpt.lab.__path__ if place != lab)]


def _loop_of(name: str, overrides: list[str]) -> Callable[[Any, Any], None]:
    """The contender's training loop; imports nothing of the others."""
    if name == "minigpt":
        from minigpt.lab.bench.ours import train_as_peers

        return partial(train_as_peers, overrides=overrides)
    if name == "minigpt-preset":
        from minigpt.lab.bench.ours import train_preset

        return partial(train_preset, overrides=overrides)
    if name == "nanogpt":
        from minigpt.lab.bench.peers.nanogpt import train_nanogpt

        return train_nanogpt
    if name == "hf":
        from minigpt.lab.bench.peers.llama import train_llama

        return train_llama
    if name == "hf-trainer":
        from minigpt.lab.bench.peers.trainer import train_with_trainer

        return train_with_trainer
    if name == "litgpt":
        from minigpt.lab.bench.peers.lit import train_litgpt

        return train_litgpt
    if name == "ceiling":
        from minigpt.lab.bench.ceiling import measure_ceiling

        return measure_ceiling
    raise AssertionError(name)


if __name__ == "__main__":
    # As a module of the package, not as a copy of it beside itself.
    sys.path[0:1] = []
    main()
