"""What went on: every finding from its first unusual step to its end, with the words for its worst moment."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from minigpt.training_monitor.finding import Finding, Status
from minigpt.training_monitor.incidents import rank
from minigpt.training_monitor.monitor import Observation
from minigpt.training_monitor.records.record import PastEvent

MOST_QUIET = 200
"""Short quiet episodes that are kept one by one; the others are counted."""
REPEAT_STEPS, REPEAT_COUNT = 1000, 3
"""So many transients of one name within so many steps are repeated trouble."""


@dataclass(slots=True)
class Episode:
    """One finding's life."""

    name: str
    opened_at: int
    incident: int
    status: Status
    at: int
    """The step of the last turning point."""
    length: int
    lasted: bool = False
    """Whether it was ever sustained."""
    interrupted: bool = False
    """Whether it deserved the user's attention."""
    lines: list[str] = field(default_factory=list)
    """The diagnosis at its worst."""
    cause: str = ""
    remedies: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    opening_loss: float | None = None
    live: bool = False
    """Whether the run's own monitor said it, from signals that are not in the record."""

    @property
    def is_open(self) -> bool:
        return self.status in ("suspected", "sustained")


class Episodes:
    """Collects findings as they come."""

    def __init__(self) -> None:
        self.all: list[Episode] = []
        self.told: set[int] = set()
        """Incidents of which something interrupted."""
        self.transients: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        """Name -> most transients within REPEAT_STEPS."""
        self._open: dict[str, Episode] = {}
        self._lately: dict[str, list[int]] = {}
        self._quiet = 0

    def observe(self, observation: Observation) -> None:
        """Takes in what a step meant."""
        for finding, diagnosis in zip(observation.findings, observation.diagnoses, strict=True):
            bad = finding.status in ("suspected", "sustained")
            lines = diagnosis.lines() if bad and (finding.interrupts or finding.status == "sustained") else []
            self._take(finding, diagnosis.incident, lines, diagnosis.cause, diagnosis.remedies, live=False)

    def recall(self, event: PastEvent) -> None:
        """Takes in an anomaly that the run's own monitor wrote down."""
        data = event.data
        status = data.get("status")
        if status not in ("suspected", "transient", "sustained", "resolved"):
            return
        opened_at = int(data.get("opened_at", event.step))
        evidence = data.get("evidence")
        finding = Finding(
            event.name,
            status,
            opened_at,
            event.step,
            int(data.get("length", 1)),
            event.interrupts,
            evidence if isinstance(evidence, dict) else {},
        )
        remedies = data.get("remedies")
        self._take(
            finding,
            -1 - int(data.get("incident", opened_at)),
            event.text.split("\n") if status in ("suspected", "sustained") else [],
            str(data.get("cause", "")),
            tuple(map(str, remedies)) if isinstance(remedies, list) else (),
            live=True,
        )

    def _take(
        self,
        finding: Finding,
        incident: int,
        lines: list[str],
        cause: str,
        remedies: tuple[str, ...],
        *,
        live: bool,
    ) -> None:
        episode = self._open.get(finding.name)
        if episode is None or episode.opened_at != finding.opened_at:
            episode = Episode(
                finding.name, finding.opened_at, incident, finding.status, finding.step, finding.length
            )
            loss = finding.evidence.get("loss")
            episode.opening_loss = loss if isinstance(loss, float) else None
            episode.live = live
            self.all.append(episode)
        episode.status, episode.at, episode.length = finding.status, finding.step, finding.length
        episode.lasted = episode.lasted or finding.status in ("sustained", "resolved")
        episode.interrupted = episode.interrupted or finding.interrupts
        if finding.interrupts:
            self.told.add(incident)
        if finding.status in ("suspected", "sustained"):
            self._open[finding.name] = episode
            episode.evidence = dict(finding.evidence)
            if lines:
                episode.lines, episode.cause, episode.remedies = lines, cause, remedies
        else:
            self._end(episode)

    def _end(self, episode: Episode) -> None:
        self._open.pop(episode.name, None)
        if episode.status != "transient":
            return
        self.transients[episode.name] += 1
        lately = [
            step for step in self._lately.get(episode.name, []) if step > episode.opened_at - REPEAT_STEPS
        ]
        self._lately[episode.name] = [*lately, episode.opened_at][-50:]
        self.repeated[episode.name] = max(self.repeated[episode.name], len(lately) + 1)
        if not episode.interrupted:
            self._quiet += 1
            if self._quiet > MOST_QUIET:
                self.all.remove(episode)

    def finish(self, last_step: int) -> None:
        """The record ends: what still lasts has lasted until here."""
        for episode in self._open.values():
            if episode.lasted and not episode.live:
                episode.length = max(episode.length, last_step - episode.opened_at + 1)

    @property
    def open(self) -> list[Episode]:
        """Those not over when the record ended."""
        return list(self._open.values())

    @property
    def is_calm(self) -> bool:
        """Whether no lasting trouble is open: quiet findings, such as clip saturation, leave a step normal."""
        return not any(
            episode.status == "sustained" and episode.incident in self.told for episode in self._open.values()
        )

    def worst(self) -> list[Episode]:
        """The best explanation of each incident that was told or lasted: those still open first, then the longest."""
        leading: dict[int, Episode] = {}
        for episode in self.all:
            if not episode.lines or not (episode.interrupted or episode.lasted):
                continue
            held = leading.get(episode.incident)
            if held is None or _order(episode) < _order(held):
                leading[episode.incident] = episode
        open_ones = {episode.incident for episode in self._open.values() if episode.status == "sustained"}
        return sorted(
            leading.values(),
            key=lambda episode: (
                episode.incident not in self.told,
                episode.incident not in open_ones,
                -episode.length,
                episode.opened_at,
            ),
        )


def _order(episode: Episode) -> tuple[bool, int, int]:
    return (not episode.interrupted, rank(episode.name), episode.opened_at)
