"""What is advised: settings that can be typed as they stand, with values that the run's own numbers ask for."""

import re
from math import log

import pytest

from minigpt.config.load import load_config
from minigpt.training_monitor.circumstances import Circumstances
from minigpt.training_monitor.diagnosis import Diagnosis, diagnose
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.remedies import remedies_for
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.words.tables import WORDS

FACTS = RunFacts(
    warmup_steps=30,
    max_grad_norm=1.0,
    learning_rate=1e-3,
    precision="fp16",
    vocab_size=257,
    optimizer="adamw",
    adam_eps=1e-8,
    weight_decay=0.1,
)
CAUSES = sorted(key.removeprefix("remedies.") for key in WORDS["en"] if key.startswith("remedies."))


def told(
    name: str,
    evidence: Evidence,
    facts: RunFacts = FACTS,
    *,
    latest: dict[str, float] | None = None,
    earliest: dict[str, float] | None = None,
) -> Diagnosis:
    finding = Finding(name, "sustained", 40, 44, 5, True, evidence)
    case = Circumstances({name: finding}, {}, None, facts, 40, latest=latest or {}, earliest=earliest or {})
    return diagnose(finding, facts, "en", case)


def settings(diagnosis: Diagnosis) -> list[str]:
    return re.findall(r"--set (\S+)", "\n".join(diagnosis.remedies))


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_remedies_name_settings_that_the_command_line_accepts(language: str, cause: str) -> None:
    finding = Finding("nan_loss", "sustained", 40, 44, 5, True, {})
    case = Circumstances({"nan_loss": finding}, {}, None, FACTS, 40)
    for text in remedies_for([cause], finding, case, WORDS[language]):
        for setting in re.findall(r"--set (\S+)", text):
            load_config("small", [setting])


def test_remedy_is_the_rate_that_brings_the_updates_down_when_they_replace_the_weights() -> None:
    latest = {"lr": 0.04, "update_ratio": 0.5}
    diagnosis = told("update_ratio_high", {"value": 0.5}, RunFacts(30, learning_rate=0.3), latest=latest)
    assert settings(diagnosis)[0] == "optimizer.learning_rate=0.001"


def test_remedy_of_huge_weights_has_no_rival_that_says_the_same() -> None:
    evidence: Evidence = {"value": 5.8, "trigger": "large", "gain": 8.0}
    assert told("initial_loss", evidence).causes == ("initialized_too_large",)


def test_remedy_is_a_warm_up_only_when_it_could_be_enough() -> None:
    causes = [
        told(
            "update_ratio_high",
            {"value": ratio},
            RunFacts(learning_rate=0.01),
            latest={"update_ratio": ratio},
        ).causes
        for ratio in (0.35, 0.95)
    ]
    assert [names[0] for names in causes] == ["warmup_too_short", "learning_rate_too_high"]


def test_remedy_counts_what_the_weights_have_grown_when_the_updates_swamp_them() -> None:
    latest = {"lr": 20.0, "update_ratio": 1.0, "weight_norm": 2000.0}
    facts = RunFacts(30, learning_rate=300.0)
    diagnosis = told("nan_loss", {}, facts, latest=latest, earliest={"weight_norm": 10.0})
    assert diagnosis.causes[0] == "learning_rate_too_high"
    assert settings(diagnosis)[0] == "optimizer.learning_rate=0.002"  # 20 x .015 / (1 x 200)


def test_remedy_is_the_rate_that_brings_the_updates_up_when_the_weights_hardly_move() -> None:
    latest = {"lr": 4e-8, "update_ratio": 1e-6}
    diagnosis = told("loss_plateau", {"value": 5.5}, RunFacts(learning_rate=1e-7), latest=latest)
    assert diagnosis.causes[0] == "learning_rate_too_low"
    assert settings(diagnosis) == ["optimizer.learning_rate=0.0006"]


def test_remedy_leaves_the_cause_open_when_nothing_is_learnt_with_usual_updates() -> None:
    facts = RunFacts(learning_rate=1e-3)
    diagnosis = told("loss_plateau", {"value": 5.5}, facts, latest={"lr": 1e-3, "update_ratio": 0.01})
    assert diagnosis.causes[0] == "not_learning"


@pytest.mark.parametrize("position", ["pre", "post"])
def test_remedy_is_a_lower_rate_when_only_the_frequencies_were_learnt(position: str) -> None:
    facts = RunFacts(learning_rate=1e-2, in_force=frozenset([f"model.norm_position={position}"]))
    diagnosis = told("loss_plateau", {"value": 5.9, "unigram": 5.8}, facts)
    assert diagnosis.causes[0] == "blocks_collapsed"
    other = ["model.norm_position=pre"] if position == "post" else []
    assert settings(diagnosis) == ["optimizer.learning_rate=0.005", *other]


def test_remedy_is_to_clip_outliers_only_when_every_step_is_clipped() -> None:
    evidence: Evidence = {"value": 0.6, "threshold": 1e-6, "ratio": 5e5}
    diagnosis = told("clip_saturation", evidence)
    assert (diagnosis.causes[0], settings(diagnosis)) == ("clip_too_low", ["training.max_grad_norm=1"])


def test_remedy_is_the_usual_eps_when_gradients_would_be_large_enough_for_it() -> None:
    evidence: Evidence = {"value": 2.0, "trigger": "eps", "floor": 3.0, "rms": 0.01, "count": 9, "of": 12}
    facts = RunFacts(adam_eps=1.0)
    diagnosis = told("gradient_vanishing", evidence, facts)
    assert (diagnosis.causes[0], settings(diagnosis)) == ("eps_too_large", ["optimizer.eps=1e-08"])
    faded: Evidence = {**evidence, "floor": 3e-8, "rms": 1e-10}
    assert told("gradient_vanishing", faded, RunFacts(adam_eps=1e-8)).causes[0] == "backward_fades"


def test_movements_remember_the_weights_of_before_when_the_second_update_is_the_first_bad_one() -> None:
    monitor = TrainingMonitor(facts=RunFacts(30, learning_rate=300.0, vocab_size=257, max_grad_norm=1.0))
    first = StepSignals(1, log(257), 1.0, lr=10.0, weight_norms={"blocks.0": 10.0})
    ruined = StepSignals(
        2,
        float("nan"),
        float("nan"),
        lr=20.0,
        weight_norms={"blocks.0": 2000.0},
        update_ratios={"blocks.0": 1.0},
    )
    monitor.observe(first)
    (diagnosis,) = monitor.observe(ruined).diagnoses
    assert settings(diagnosis)[0] == "optimizer.learning_rate=0.002"
