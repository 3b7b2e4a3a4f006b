"""A run in numbers: loss and gradient norm by phase, clipped share, throughput, curves."""

from dataclasses import dataclass, field
from math import isfinite

from minigpt.training_monitor.report.curve import Curve
from minigpt.training_monitor.report.histogram import LogHistogram
from minigpt.training_monitor.signals import StepSignals

MIN_STEPS = 30
"""Recorded steps below which a run is one phase."""


@dataclass(slots=True)
class Phase:
    """Steps `first` to `last` of the run."""

    name: str
    first: int
    last: int
    count: int = 0
    losses: LogHistogram = field(default_factory=LogHistogram)
    norms: LogHistogram = field(default_factory=LogHistogram)
    """Of the steps outside lasting trouble: what is normal here."""
    clipped: int = 0

    def band(self) -> tuple[float, float, float] | None:
        """5 %, 50 % and 95 % quantile of the gradient norm; None when there were too few healthy steps."""
        low, middle, high = (self.norms.quantile(fraction) for fraction in (0.05, 0.5, 0.95))
        enough = self.norms.count >= 3
        return (low, middle, high) if enough and low and middle and high else None


@dataclass(slots=True)
class Summary:
    """Fed with every step; knows nothing of findings but whether a step counts as normal."""

    first: int
    last: int
    phases: list[Phase]
    max_grad_norm: float | None = None
    knows_clipping: bool = False
    """Whether the record itself says which steps were clipped."""
    count: int = 0
    clipped: int = 0
    skipped: int = 0
    non_finite: int = 0
    lowest_loss: float = float("inf")
    lowest_loss_at: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    last_norm: float | None = None
    last_step: int = 0
    seconds: float = 0.0
    early_speed: LogHistogram = field(default_factory=LogHistogram)
    late_speed: LogHistogram = field(default_factory=LogHistogram)
    """Tokens a second in the first and last quarter."""
    head_losses: LogHistogram = field(default_factory=LogHistogram)
    tail_losses: LogHistogram = field(default_factory=LogHistogram)
    """Of the first and last twentieth of the steps."""
    early_losses: LogHistogram = field(default_factory=LogHistogram)
    late_losses: LogHistogram = field(default_factory=LogHistogram)
    """Of the first and last quarter."""
    peak_lr: float = 0.0
    """0: the record has no learning rate."""
    loss_curve: Curve = field(init=False)
    norm_curve: Curve = field(init=False)
    _at: int = 0

    def __post_init__(self) -> None:
        self.loss_curve, self.norm_curve = (Curve(self.first, self.last) for _ in range(2))

    def add(self, signals: StepSignals, *, has_loss: bool, has_norm: bool, is_normal: bool) -> None:
        """Takes a step in; `is_normal`: no lasting trouble is open."""
        step = self.last_step = signals.step
        self.count += 1
        while self._at + 1 < len(self.phases) and step > self.phases[self._at].last:
            self._at += 1
        phase = self.phases[self._at]
        phase.count += 1
        if has_loss:
            self._add_loss(signals, phase)
        if has_norm:
            self._add_norm(signals, phase, is_normal)
        self.skipped += signals.update_skipped
        if isfinite(signals.lr):
            self.peak_lr = max(self.peak_lr, signals.lr)
        self.seconds += signals.seconds
        quarter = (self.last - self.first) // 4
        if step <= self.first + quarter:
            self.early_speed.add(signals.tokens_per_second)
        elif step > self.last - quarter:
            self.late_speed.add(signals.tokens_per_second)

    def _add_loss(self, signals: StepSignals, phase: Phase) -> None:
        loss = signals.loss
        phase.losses.add(loss)
        self.loss_curve.add(signals.step, loss)
        twentieth = (self.last - self.first) // 20
        if signals.step <= self.first + twentieth:
            self.head_losses.add(loss)
        elif signals.step >= self.last - twentieth:
            self.tail_losses.add(loss)
        quarter = (self.last - self.first) // 4
        if signals.step <= self.first + quarter:
            self.early_losses.add(loss)
        elif signals.step >= self.last - quarter:
            self.late_losses.add(loss)
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.last_loss = loss
        if isfinite(loss) and loss < self.lowest_loss:
            self.lowest_loss, self.lowest_loss_at = loss, signals.step
        self.non_finite += not isfinite(loss)

    def _add_norm(self, signals: StepSignals, phase: Phase, is_normal: bool) -> None:
        norm = signals.grad_norm
        if norm < 0:
            return
        if is_normal:
            phase.norms.add(norm)
        self.norm_curve.add(signals.step, norm)
        self.last_norm = norm
        self.non_finite += not isfinite(norm) and isfinite(signals.loss)
        clipped = signals.clipped or (self.max_grad_norm is not None and norm > self.max_grad_norm)
        self.clipped += clipped
        phase.clipped += clipped

    def began_and_ended(self) -> tuple[float, float, float] | None:
        """Typical loss at the beginning, at the end, and in the best phase; None where there are too few steps."""
        began, ended = self.head_losses.quantile(0.5), self.tail_losses.quantile(0.5)
        medians = [median for phase in self.phases if (median := phase.losses.quantile(0.5)) is not None]
        if began is None or ended is None or min(self.head_losses.count, self.tail_losses.count) < 3:
            return None
        return began, ended, min(medians)

    def early_and_late(self) -> tuple[float, float] | None:
        """Typical loss of the first and the last quarter; None where there are too few steps."""
        early, late = self.early_losses.quantile(0.5), self.late_losses.quantile(0.5)
        if early is None or late is None or min(self.early_losses.count, self.late_losses.count) < 3:
            return None
        return early, late

    @property
    def clipped_share(self) -> float | None:
        """0..1; None where neither the record nor the configuration tells."""
        known = self.knows_clipping or self.max_grad_norm is not None
        return self.clipped / self.count if known and self.count else None


def phases_of(first: int, last: int, count: int, warmup_steps: int | None) -> list[Phase]:
    """The run cut into first 1 %, warm-up, early, middle and late; a short one is whole."""
    if count < MIN_STEPS:
        return [Phase("whole", first, last)]
    each = (last - first + 1) / count
    ends: list[tuple[str, int]] = []
    start_end = first - 1 + (last - first + 1) // 100
    if (start_end - first + 1) / each >= 5:
        ends.append(("start", start_end))
    warmup_end = min(warmup_steps or 0, last)
    if warmup_end >= (ends[-1][1] if ends else first) + 2 * each:
        ends.append(("warmup", warmup_end))
    begin = ends[-1][1] if ends else first - 1
    left = last - begin
    if left / each >= 15:
        ends += [("early", begin + left // 3), ("middle", begin + 2 * left // 3), ("late", last)]
    elif left > 0:
        ends.append(("after_warmup", last) if ends else ("whole", last))
    phases, at = [], first
    for name, end in ends:
        phases.append(Phase(name, at, end))
        at = end + 1
    return phases
