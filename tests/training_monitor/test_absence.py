"""The memory of who is absent, and which absences the rest of the model finds odd."""

import json

from minigpt.training_monitor.detectors.absence import (
    Absence,
    kind,
    named,
    out_of_place,
    without_experts,
)
from tests.training_monitor.invariant_series import NAMES, facts_with

ABC = ("blocks.0.a", "blocks.0.b", "blocks.1.a")


def absent(*names: str, among: tuple[str, ...] = ABC) -> list[bool | None]:
    return [name in names for name in among]


def test_kind_replaces_numbers_that_are_parts_of_a_name_only() -> None:
    assert kind("blocks.3.mlp.up.weight") == "blocks.#.mlp.up.weight"
    assert kind("conv1.fc2") == "conv1.fc2"


def test_absence_is_gone_at_once_and_overdue_after_its_patience() -> None:
    absence = Absence(3)
    absence.note(ABC, absent())
    assert not absence.any_absent
    for row in (1, 2, 3, 4):
        absence.note(ABC, absent("blocks.0.a"))
        assert absence.row("blocks.0.a") == row
        assert absence.gone() == ["blocks.0.a"]
        assert absence.overdue() == (["blocks.0.a"] if row >= 3 else [])
        assert absence.never(1) == []
    absence.note_all_present(ABC)
    assert not absence.any_absent
    assert absence.row("blocks.0.a") == 0


def test_absence_is_counted_on_judged_steps_only() -> None:
    absence = Absence(3)
    absence.note(ABC, absent())
    absence.note(ABC, absent("blocks.0.a"))
    for _ in range(5):
        absence.note(ABC, [None, False, False])
    assert (absence.row("blocks.0.a"), absence.gone()) == (1, ["blocks.0.a"])


def test_absence_is_looked_up_by_name_when_the_order_changes() -> None:
    absence = Absence(2)
    absence.note(ABC, absent())
    absence.note(ABC, absent("blocks.0.b"))
    turned = tuple(reversed(ABC))
    absence.note(turned, absent("blocks.0.b", among=turned))
    assert absence.overdue() == ["blocks.0.b"]
    other = ("blocks.2.a", *ABC[1:])
    for _ in range(2):
        absence.note(other, absent("blocks.2.a", among=other))
    assert absence.never(1) == ["blocks.2.a"]


def test_patience_grows_with_the_longest_gap_of_its_kind() -> None:
    absence = Absence(2)
    for name in ((), ("blocks.0.a",) * 4, (), ("blocks.0.a",), ()):
        for _ in range(len(name) or 1):
            absence.note(ABC, absent(*name))
    assert absence.longest_gap("blocks.1.a") == 4
    assert (absence.patience("blocks.1.a"), absence.patience("blocks.0.b")) == (2 + 3 * 4, 2)
    for row in range(1, 16):
        absence.note(ABC, absent("blocks.1.a"))
        assert absence.gone() == (["blocks.1.a"] if row >= 14 else [])


def test_first_presence_counts_as_the_end_of_a_gap_only_with_a_late_start() -> None:
    for late_start, gap in ((False, 0), (True, 4)):
        absence = Absence(2, late_start=late_start)
        for _ in range(4):
            absence.note(ABC, absent("blocks.0.a"))
        assert absence.never(4) == ["blocks.0.a"]
        assert absence.never(5) == []
        absence.note(ABC, absent())
        assert absence.longest_gap("blocks.0.a") == gap


def test_declared_absence_is_accepted_until_the_name_comes_back() -> None:
    absence = Absence(2)
    absence.note(ABC, absent())
    absence.note(ABC, absent("blocks.0.a"))
    absence.rebase()
    for _ in range(9):
        absence.note(ABC, absent("blocks.0.a"))
        assert (absence.gone(), absence.overdue(), absence.never(1)) == ([], [], [])
    absence.note(ABC, absent())
    absence.note(ABC, absent("blocks.0.a"))
    assert absence.gone() == ["blocks.0.a"]


def test_what_goes_with_the_first_step_after_a_declaration_was_never_there() -> None:
    absence = Absence(2)
    absence.note(ABC, absent())
    absence.rebase()
    absence.note(ABC, absent("blocks.0.a"))
    assert (absence.gone(), absence.never(2)) == ([], [])
    absence.note(ABC, absent("blocks.0.a"))
    assert absence.never(2) == ["blocks.0.a"]


def test_all_present_is_learnt_again_after_a_declaration() -> None:
    absence = Absence(1)
    absence.note_all_present(ABC)
    absence.note_all_present(ABC)
    absence.rebase()
    assert not absence.present
    absence.note_all_present(ABC)
    assert set(absence.present) == set(ABC)
    absence.note_all_present(("blocks.9.z",))
    assert "blocks.9.z" in absence.present


def test_absence_goes_on_as_before_when_its_state_was_saved_at_any_step() -> None:
    rows = [(), ("blocks.0.a",), ("blocks.0.a",), (), ("blocks.1.a",), ("blocks.1.a", "blocks.0.b"), ()] * 2

    def judged(absence: Absence) -> str:
        names = [absence.gone(), absence.overdue(), absence.never(2), sorted(absence.present)]
        return f"{names} {[absence.row(name) for name in ABC]} {[absence.patience(name) for name in ABC]}"

    for split in range(len(rows)):
        whole, resumed = Absence(2, late_start=True), Absence(2, late_start=True)
        for step, names in enumerate(rows):
            if step == 5:
                whole.rebase()
            whole.note(ABC, absent(*names))
            if step == split:
                resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
            elif step > split:
                if step == 5:
                    resumed.rebase()
                resumed.note(ABC, absent(*names))
                assert judged(resumed) == judged(whole)


FACTS = facts_with()


def found(never: set[str]) -> list[str]:
    return out_of_place(FACTS, never, set(NAMES) - never)


def test_whole_layer_is_out_of_place_when_its_like_is_alive_or_all_below_is_dead() -> None:
    layer = {name for name in NAMES if name.startswith("blocks.1")}
    assert set(found(layer)) == layer
    below = {name for name in NAMES if name.startswith(("embedding", "blocks"))}
    assert set(found(below)) == below
    assert found({"embedding.weight"}) == ["embedding.weight"]


def test_unused_head_or_norm_is_in_its_place() -> None:
    assert found({"head.weight"}) == []
    assert found({"norm.weight"}) == []


def test_parameter_is_out_of_place_when_its_like_is_alive_in_another_layer() -> None:
    assert found({"blocks.1.query.weight"}) == ["blocks.1.query.weight"]
    assert found({f"blocks.{i}.query.weight" for i in range(3)}) == []


EXPERTS = tuple(f"blocks.{block}.experts.{i}.up" for block in range(2) for i in range(3))


def test_expert_is_left_out_while_others_of_its_layer_are_there() -> None:
    facts = facts_with(names=("embedding.weight", *EXPERTS))
    assert without_experts(facts, {EXPERTS[0]}) == set()
    assert without_experts(facts, {EXPERTS[0], "embedding.weight"}) == {"embedding.weight"}
    assert without_experts(facts, set(EXPERTS[:3])) == set(EXPERTS[:3])
    assert out_of_place(facts, {EXPERTS[0]}, set(facts.names) - {EXPERTS[0]}) == []


def test_two_alike_are_steps_of_a_sequence_and_no_experts() -> None:
    facts = facts_with(names=("blocks.0.convs.0.up", "blocks.0.convs.1.up"))
    assert without_experts(facts, {"blocks.0.convs.0.up"}) == {"blocks.0.convs.0.up"}


def test_evidence_names_the_layer_nearest_the_output_and_at_most_five() -> None:
    evidence = named(FACTS, set(NAMES[:6]))
    assert (evidence["group"], evidence["parameter"]) == ("blocks.1", "blocks.1.norm.weight")
    assert evidence["parameters"] == ", ".join([*NAMES[:5], "..."])
    assert (evidence["count"], evidence["of"]) == (6, 12)
    assert str(named(FACTS, set(NAMES[:5]))["parameters"]).endswith(NAMES[4])
    assert named(FACTS, {"another"}) == {}
