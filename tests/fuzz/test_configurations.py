"""Any configuration at all: taken just as it was given, and trained; or refused in one clear line."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.bench import bench
from tests.fuzz.cases import KINDS, Case, Recipe, one_value, several_values
from tests.fuzz.recipe import recipe_in
from tests.fuzz.tally import tried_case
from tests.training.tiny_run import Workshop

Make = Callable[[Recipe], st.SearchStrategy[Case]]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


def _try_all(make: Make, workshop: Workshop, number: int, *, trains: bool) -> None:
    base = workshop.config()

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(make(recipe_in(workshop.folder)))
    def try_one(case: Case) -> None:
        outcome, defect = tried_case(case, base, workshop.folder, trains=trains, resumed=trains)
        assert defect is None, f"{outcome}: {defect}"

    try_one()


@pytest.mark.parametrize("make", KINDS)
def test_a_configuration_loads_as_it_was_given_or_is_refused_in_words(make: Make, workshop: Workshop) -> None:
    _try_all(make, workshop, 16, trains=False)


@pytest.mark.parametrize("make", [one_value, several_values])
def test_a_configuration_that_loads_trains_two_steps_and_resumes(make: Make, workshop: Workshop) -> None:
    _try_all(make, workshop, 6, trains=True)


def test_a_defect_would_be_seen(workshop: Workshop) -> None:
    asked = ((("training", "seed"), "3"),)
    silently = Case("x", b"", ("training.max_steps=4",), asked)
    _, defect = tried_case(silently, workshop.config(), workshop.folder, trains=False, resumed=False)
    assert defect is not None
    assert "training.seed was given as '3' and became 0" in defect
    unnamed = Case("x", b"training: 3\n", named=("optimizer.eps",))
    _, defect = tried_case(unnamed, workshop.config(), workshop.folder, trains=False, resumed=False)
    assert defect is not None
    assert "is named in" in defect
