"""The cause that a diagnosis puts first, and what it says moved."""

import json
from math import nan

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.causes import explain
from minigpt.training_monitor.circumstances import Circumstances
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.movements import Movements
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


def watched(lr_at_60: float, *, label_match_at_60: float = 1.0, loss_at_60: float = 3.0) -> Movements:
    movements = Movements()
    for step in range(1, 71):
        late = step >= 60
        movements.add(
            StepSignals(
                step,
                loss_at_60 if late else 3.0,
                nan if step == 30 else 1.0,
                lr=lr_at_60 if late else 1e-3,
                update_ratios={"blocks.0": 0.005, "blocks.1": 0.006},
                batch=BatchFacts(step, 512, 200, 0.05, label_match_at_60 if late else 1.0, 0.02, 0.0),
            )
        )
    return movements


def case(movements: Movements, *names: str, facts: RunFacts | None = None) -> Circumstances:
    findings = {name: Finding(name, "sustained", 60, 68, 9, True, {}) for name in names}
    moved, steady = movements.around(60)
    jump = movements.jump("lr", 60, 2.0)
    return Circumstances(findings, moved, jump, facts or RunFacts(learning_rate=1e-3), 60, steady)


def test_movements_tell_what_changed_by_how_much_and_since_when() -> None:
    moved, steady = watched(5e-2, loss_at_60=6.0).around(61)
    assert (moved["lr"].before, moved["lr"].after, moved["lr"].since) == (1e-3, 5e-2, 60)
    assert moved["loss"].ratio == 2.0
    assert {"grad_norm", "update_ratio", "distinct_tokens", "label_match"} <= steady
    assert "scaler_scale" not in moved.keys() | steady


def test_movements_know_nothing_when_there_was_no_before() -> None:
    movements = Movements()
    movements.add(StepSignals(1, 8.0, 1.0))
    assert movements.around(1) == ({}, frozenset())


def test_movements_go_on_when_restored() -> None:
    movements, other = watched(1e-3), Movements()
    other.load_state_dict(json.loads(json.dumps(movements.state_dict())))
    assert other.around(60) == movements.around(60)


def test_cause_is_the_jump_when_the_learning_rate_jumped() -> None:
    found = explain(case(watched(5e-2), "update_ratio_high", "loss_spike"))
    assert found.causes[0].name == "learning_rate_jump"
    ((_, values),) = found.causes[0].reasons
    assert (values["before"], values["after"], values["since"]) == (1e-3, 5e-2, 60)


def test_cause_is_no_jump_when_the_learning_rate_ramps() -> None:
    movements = Movements()
    for step in range(1, 71):
        movements.add(StepSignals(step, 3.0, 1.0, lr=1e-4 * 1.1**step))
    assert movements.jump("lr", 60, 2.0) is None


def test_cause_is_the_data_and_not_the_rate_when_the_labels_moved() -> None:
    found = explain(case(watched(1e-3, label_match_at_60=0.01), "label_mismatch", "loss_divergence"))
    assert found.causes[0].name == "labels_shuffled"
    assert [key for key, _ in found.ruled_out] == ["cleared.lr"]


def test_cause_rules_out_data_and_rate_when_both_stood_still() -> None:
    found = explain(case(watched(1e-3), "weight_jump", "loss_spike"))
    assert found.causes[0].name == "weights_changed_outside"
    assert [key for key, _ in found.ruled_out] == ["cleared.lr", "cleared.data"]


def test_cause_claims_nothing_about_what_was_not_seen() -> None:
    finding = Finding("gradient_vanishing", "sustained", 60, 80, 21, True, {})
    found = explain(Circumstances({finding.name: finding}, {}, None, RunFacts(), 60))
    assert found.ruled_out == ()
    assert found.causes[0].name == "backward_fades"


def test_cause_is_not_the_warmup_when_the_updates_were_as_ever() -> None:
    early = RunFacts(learning_rate=1e-3, warmup_steps=4)
    loss_alone = explain(case(watched(1e-3, loss_at_60=6.0), "loss_divergence", facts=early))
    assert loss_alone.causes[0].name != "warmup_too_short"
    large = explain(case(watched(1e-3, loss_at_60=6.0), "loss_divergence", "update_ratio_high", facts=early))
    weights = {cause.name: cause.weight for cause in large.causes}
    assert (
        weights["warmup_too_short"]
        > 2 + {cause.name: cause.weight for cause in loss_alone.causes}["warmup_too_short"]
    )


def test_cause_is_the_scale_when_gradients_grew_by_the_scalers_factor() -> None:
    evidence = {"ratio": 4096.0, "scaler_scale": 4096.0}
    finding = Finding("gradient_scale_shift", "sustained", 60, 68, 9, True, evidence)
    circumstances = Circumstances({finding.name: finding}, {}, None, RunFacts(precision="fp16"), 60)
    assert explain(circumstances).causes[0].name == "gradients_still_scaled"
