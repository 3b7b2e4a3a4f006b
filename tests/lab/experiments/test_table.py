import math

import pytest

from minigpt.lab.experiments.intervals import Mean, Ratio, Share, mean_of
from minigpt.lab.experiments.table import columns_of


def test_mean_has_students_interval() -> None:
    found = mean_of([1.0, 2.0, 3.0])

    # Standard deviation 1, t(.975, 2) = 4.303: 4.303 / sqrt(3).
    assert found.value == 2.0
    assert found.half_width == pytest.approx(2.4843, abs=1e-4)
    assert found.text(".2f") == "2.00 ± 2.48"


def test_mean_of_one_value_has_no_interval_and_none_of_nothing() -> None:
    assert mean_of([4.0]) == Mean(4.0, None, 1)
    assert math.isnan(mean_of([]).value)
    assert mean_of([1.0, math.nan]).text() == "not finite"


def test_interval_of_many_values_nears_the_normal_one() -> None:
    found = mean_of([0.0, 1.0] * 50)

    # t(.975, 99) = 1.984; standard deviation sqrt(25 / 99).
    assert found.half_width == pytest.approx(1.984 * math.sqrt(25 / 99) / 10, rel=2e-3)


def test_share_has_wilsons_interval() -> None:
    # By Wilson's formula: 8 of 10 lies within 49 and 94 %, 0 of 10 within 0 and 28 %.
    assert Share(8, 10).text() == "8/10 (49-94 %)"
    assert Share(0, 10).text() == "0/10 (0-28 %)"
    assert Share(0, 0).interval == (0.0, 1.0)


def test_table_is_the_same_for_people_spreadsheets_and_programs() -> None:
    table = columns_of(
        ["arm", "loss", "blown up", "note"],
        [["a", mean_of([1.0, 3.0]), Share(1, 2), None], ["b", mean_of([2.0]), Share(0, 2), math.nan]],
        "A title",
        ".1f",
    )

    assert table.markdown().splitlines() == [
        "**A title**",
        "",
        "| arm | loss       | blown up     | note       |",
        "|-----|------------|--------------|------------|",
        "| a   | 2.0 ± 12.7 | 1/2 (9-91 %) | -          |",
        "| b   | 2.0        | 0/2 (0-66 %) | not finite |",
    ]
    assert table.csv().splitlines()[0] == "arm,loss,loss low,loss high,loss runs,blown up,blown up of,note"
    assert table.csv().splitlines()[2] == "b,2.0,,,1,0,2,"
    assert table.plain()["rows"][1] == {
        "arm": "b", "loss": 2.0, "loss low": None, "loss high": None, "loss runs": 1,
        "blown up": 0, "blown up of": 2, "note": None,
    }  # fmt: skip


def test_ratio_takes_its_interval_into_the_files_where_it_has_one() -> None:
    table = columns_of(["x"], [[Ratio(2.0, 1.5, 3.0, 4)], [Ratio(2.0, 2.0, 2.0, 1)]], "Ratios")

    assert table.markdown().splitlines()[4:] == ["| 2 (1.5 to 3) |", "| 2            |"]
    assert table.csv().splitlines() == ["x,x low,x high,x runs", "2.0,1.5,3.0,4", "2.0,,,1"]
