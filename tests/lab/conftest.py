from dataclasses import dataclass
from pathlib import Path

import pytest

from minigpt.lab.drill.drill import Choice, run_drill
from minigpt.lab.drill.score import Score


@dataclass(frozen=True)
class ReducedDrill:
    """The reduced drill's score, and the recordings for another hearing."""

    score: Score
    traces: Path


@pytest.fixture(scope="session")
def reduced_drill(tmp_path_factory: pytest.TempPathFactory) -> ReducedDrill:
    traces = tmp_path_factory.mktemp("traces")
    score = run_drill(Choice(reduced=True, traces=traces, processes=2), lambda done, of, name: None)
    return ReducedDrill(score, traces)
