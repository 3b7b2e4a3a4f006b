"""Who is to blame for a run's first NaN, from which text, and the crash bundle of a step that went wrong."""

import os
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from minigpt.data.loader import StepBatches
from minigpt.training.bundle import (
    MOST_PER_RUN,
    Bundle,
    bundle_path,
    bundles_of,
    last_records,
    write_bundle,
)
from minigpt.training.compilation import uncompiled
from minigpt.training.folder import METRICS_NAME
from minigpt.training.passage import passage_of, struck
from minigpt.training.redo import blame_step, random_states
from minigpt.training.run import Run
from minigpt.training_monitor.blame import Blame
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.signals import StepSignals

NUMBERS = ("nan_loss", "non_finite_gradient", "overflow_streak", "scale_collapse")
"""Findings that are worth doing the step again."""
MOST_BLAMES = 10
"""In one process: each takes a few steps' time, and a run that is ill all the time need not be told more often."""
STEPS_KEPT = 2
"""On CUDA a step's numbers are read while the next one runs."""


@dataclass(frozen=True)
class _Began:
    """A step as it began."""

    step: int
    batches: StepBatches
    rng: dict[str, Tensor]


class Forensics:
    """`begin` and `end` each step; `examine` its findings when its signals have arrived."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began: deque[_Began] = deque(maxlen=STEPS_KEPT)
        self._called_off: deque[tuple[int, Tensor]] = deque(maxlen=STEPS_KEPT)
        """Steps, and 1 on the device if the step's update was called off."""
        self._blames = 0
        self._teller = 0
        self._told: dict[str, tuple[int, Evidence]] = {}
        """By finding: the step at which it was examined, and what was found: once an incident."""
        self._notes: list[Event] = []

    def begin(self, batches: StepBatches) -> None:
        """Before a step: remember it (a few kilobytes)."""
        run, step = self._run, self._run.position.step + 1
        if not run.monitor.config.enabled:
            return
        if self._began and step == self._began[-1].step:  # begun anew: it did not fit the memory
            self._began.pop()
        self._began.append(_Began(step, batches, random_states(run.world.device)))

    def end(self, call_off: Tensor) -> None:
        """After the step: whether its update was called off, still on the device."""
        self._called_off.append((self._run.position.step, call_off))

    def examine(self, signals: StepSignals, finding: Finding) -> Evidence:
        """Who made the first NaN of an incident, from which text, and where its crash bundle lies; the worst text of a
        batch that has lost its variety."""
        if finding.name == "degenerate_batch" and finding.evidence.get("trigger") != "targets":
            return self._monotonous(signals)
        if finding.name not in NUMBERS or finding.status not in ("suspected", "sustained"):
            return {}
        told_at, evidence = self._told.get(finding.name, (0, {}))
        if told_at and finding.opened_at <= told_at:
            return evidence
        began = next((each for each in self._began if each.step == signals.step), None)
        if began is None or self._blames >= MOST_BLAMES:
            return {}
        self._blames += 1
        blame, micro = self._blame(began, signals)
        evidence = self._evidence(began, blame, micro)
        path = self._write(began, signals, finding.name, blame)
        if path is not None:
            evidence = {**evidence, "bundle": str(path)}
        self._told[finding.name] = (signals.step, evidence)
        return evidence

    def _monotonous(self, signals: StepSignals) -> Evidence:
        """The text with the fewest different tokens in this rank's batch."""
        batches = [each.batches.micro_batches for each in self._began if each.step == signals.step]
        rows = [
            (len(inputs_T.unique()), batch, row)
            for micro_batches in batches
            for batch in micro_batches
            for row, inputs_T in enumerate(batch.inputs_BT)
        ]
        if not rows:
            return {}
        _, batch, row = min(rows, key=lambda each: each[0])
        passage = passage_of(self._run, batch, row)
        return {"document": passage.document, "offset": passage.offset} if passage.document else {}

    def keep_step(self, signals: StepSignals, cause: str) -> None:
        """A crash bundle of a step that ended the run for another reason than NaN."""
        began = next((each for each in self._began if each.step == signals.step), None)
        if began is None or cause in NUMBERS:
            return
        self._teller = 0
        path = self._write(began, signals, cause, None)
        if path is not None:
            text = f"the step's crash bundle is {path}; to do the step again: minigpt replay {path}"
            self._notes.append(Event(signals.step, "note", "crash_bundle", text, data={"bundle": str(path)}))

    def take_notes(self) -> list[Event]:
        """What else is to be recorded, once."""
        notes, self._notes = self._notes, []
        return notes

    def _blame(self, began: _Began, signals: StepSignals) -> tuple[Blame, int]:
        """This rank's, or that of the first rank which can tell; its micro-batch too."""
        run = self._run
        targets = max(1, signals.tokens)
        try:
            with uncompiled(run.model):
                own = blame_step(
                    run.model,
                    began.batches.micro_batches,
                    began.rng,
                    run.precision,
                    scale=(signals.scaler_scale or 1.0) * run.world.size / targets,
                )
        except RuntimeError as error:
            # No memory left, mostly; what the run has found so far must still be told.
            (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
            own = Blame("not reproduced", note=f"the step could not be done again: {reason}"), 0
        self._teller = 0
        everybody = run.world.gather((own[0].as_data(), own[1]))
        for rank, (data, micro) in enumerate(everybody):
            if data["phase"] != "not reproduced":
                self._teller = rank
                return Blame(**data), micro
        return own

    def _evidence(self, began: _Began, blame: Blame, micro: int) -> Evidence:
        """The blame in the vocabulary of findings; the text only where one sequence, not all, is struck."""
        found = blame.as_evidence()
        if blame.phase in ("weights", "not reproduced"):
            return found
        batch = began.batches.micro_batches[micro]
        row, place = struck(blame, batch)
        run = self._run
        passage = run.world.gather(passage_of(run, batch, row))[self._teller]
        found |= {"document": passage.document, "offset": passage.offset + place, "text_head": passage.text}
        sequences = batch.inputs_BT.shape[0]
        if blame.shape[:1] == (sequences,):
            found |= {"sequences_hit": blame.rows_hit, "sequences": sequences}
        return found

    def _write(self, began: _Began, signals: StepSignals, reason: str, blame: Blame | None) -> Path | None:
        """The bundle, by the rank that can tell the story; None where there are enough, or the disk refuses."""
        run, path = self._run, bundle_path(self._run.run_dir, began.step)
        # os.path: a disk that is out of reach has no bundle, and that is no reason to end the run.
        enough = not os.path.exists(path) and len(bundles_of(run.run_dir)) >= MOST_PER_RUN  # noqa: PTH110
        # A folder that was deleted or unmounted must not be made again here.
        gone = not os.path.isdir(run.run_dir) or (run.held is not None and run.held.lost() is not None)  # noqa: PTH112
        if run.world.from_main(enough or gone):
            return None
        written, problem = True, ""
        if run.world.rank == self._teller and not path.exists():
            try:
                write_bundle(run.run_dir, self._bundle(began, signals, reason, blame))
            except (OSError, RuntimeError) as error:  # a full disk must not end the run
                (problem, *_) = str(error).strip().splitlines() or [type(error).__name__]
                written = False
        if run.world.any(not written):
            self._notes.append(
                Event(
                    began.step, "note", "crash_bundle", f"the crash bundle {path} was not written: {problem}"
                )
            )
            return None
        return path

    def _bundle(self, began: _Began, signals: StepSignals, reason: str, blame: Blame | None) -> Bundle:
        run = self._run
        batches = began.batches.micro_batches
        numbers = {
            key: value
            for key, value in asdict(replace(signals, parameters=None)).items()
            if value is not None
        }
        return Bundle(
            step=began.step,
            reason=reason,
            micro_batches=batches,
            passages=[
                [passage_of(run, batch, row) for row in range(len(batch.window_indices))] for batch in batches
            ],
            rng=began.rng,
            weights=run.model.state_dict(),
            weights_exact=self._weights_stand_since(began.step),
            signals=numbers,
            records=last_records(run.run_dir / METRICS_NAME),
            precision=run.precision.name,
            rank=run.world.rank,
            world_size=run.world.size,
            compiled=run.model._compiled_call_impl is not None,
            device=run.world.device.type,
            identity=run.identity,
            blame={} if blame is None else blame.as_data(),
        )

    def _weights_stand_since(self, step: int) -> bool:
        """Whether no update was applied in `step` and after it (this may wait for the device)."""
        flags = [flag for at, flag in self._called_off if at >= step]
        return len(flags) == self._run.position.step - step + 1 and all(bool(flag) for flag in flags)
