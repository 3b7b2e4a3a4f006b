"""The monitor's words."""

import re
from pathlib import Path

import pytest

from minigpt.training_monitor import causes as causes_module
from minigpt.training_monitor.causes import NAMED_BY
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.diagnosis import Diagnosis, diagnose
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.words.tables import WORDS
from tests.training_monitor.monitor_series import decline, signals_of


def sustained(config: MonitorConfig) -> Diagnosis:
    monitor = TrainingMonitor(config, facts=RunFacts(learning_rate=3e-4, max_grad_norm=1.0, warmup_steps=50))
    told = [diagnosis for step in signals_of(decline(110)) for diagnosis in monitor.observe(step).diagnoses]
    return told[-1]


def test_diagnosis_says_what_was_seen_how_long_why_and_what_to_do() -> None:
    lines = sustained(MonitorConfig()).lines()
    assert lines[0] == "⚠️ Anomaly detected at step 150: gradient_vanishing"
    assert lines[1].startswith(
        "   Seen: gradient norm 1e-06 (absolute floor 1e-06), loss 8.2343, 0.0001 x its own"
    )
    assert lines[2] == "   Duration: sustained since step 130 (21 steps so far)"
    assert lines[3].startswith("   Likely cause: the backward signal fades")
    assert "--set training.check_grad_flow=true" in lines[-1]
    assert "--set monitor.gradient_vanishing.floor=1e-08" in lines[-1]


def test_diagnosis_keeps_the_headline_when_the_language_is_chinese() -> None:
    lines = sustained(MonitorConfig(language="zh")).lines()
    assert lines[0] == "⚠️ Anomaly detected at step 150: gradient_vanishing"
    assert lines[2] == "   持续性：持续：自第 130 步起已 21 步"
    assert lines[-1].startswith("   建议：")


def test_diagnosis_gives_numbers_that_fit_the_run() -> None:
    finding = Finding("gradient_exploding", "sustained", 200, 207, 8, True, {"value": 30.0, "loss": 3.0})
    remedies = diagnose(finding, RunFacts(100, 1.0, 3e-4), "en").remedies
    assert remedies == (
        "lower the learning rate: --set optimizer.learning_rate=0.00015",
        "warm up longer: --set schedule.warmup_steps=200",
        "clip harder: --set training.max_grad_norm=0.5",
    )


def test_diagnosis_is_one_line_without_advice_when_the_incident_is_over() -> None:
    finding = Finding("gradient_vanishing", "transient", 14, 15, 1, False, {"value": 2e-4, "loss": 7.89})
    (line,) = diagnose(finding, RunFacts(), "en").lines()
    assert line.startswith(
        "gradient_vanishing: transient: 1 step(s) from step 14, over by itself at step 15; "
    )


def test_languages_say_the_same_things() -> None:
    english, chinese = WORDS["en"], WORDS["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", chinese[key])), key
        assert re.findall(r"--set [\w.]+", text) == re.findall(r"--set [\w.]+", chinese[key]), key
        assert text.count("|") == chinese[key].count("|"), key


def test_every_finding_and_cause_has_its_sentences() -> None:
    words = WORDS["en"]
    names = [name for rule in RULES.values() for name in rule.findings]
    assert [name for name in names if f"{name}.seen" not in words] == []
    causes = {key.removeprefix("cause.") for key in words if key.startswith("cause.")}
    assert causes == {key.removeprefix("remedies.") for key in words if key.startswith("remedies.")}
    source = Path(causes_module.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r"Cause\(\s*\"(\w+)\"", source)) | {cause for cause, _ in NAMED_BY.values()}
    assert named <= causes


@pytest.mark.parametrize("name", [name for rule in RULES.values() for name in rule.findings])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_name_has_words_when_nothing_else_is_known(name: str, language: str) -> None:
    finding = Finding(name, "suspected", 2, 2, 1, True, {})
    text = "\n".join(diagnose(finding, RunFacts(), language).lines())
    assert f"at step 2: {name}" in text
    assert "{" not in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_diagnosis_does_not_advise_what_the_run_already_does(language: str) -> None:
    finding = Finding("nan_loss", "sustained", 302, 304, 3, True, {"loss": float("nan")})
    unknown = diagnose(finding, RunFacts(learning_rate=2e-3), language).remedies
    known = diagnose(
        finding,
        RunFacts(learning_rate=2e-3, precision="bf16", in_force=frozenset({"model.qk_norm=true"})),
        language,
    ).remedies
    settings = [re.findall(r"--set ([\w.]+=\S+)", " ".join(texts)) for texts in (unknown, known)]
    assert settings[0] == [
        "optimizer.learning_rate=0.001",
        "training.mixed_precision=bf16",
        "model.qk_norm=true",
    ]
    assert settings[1] == ["optimizer.learning_rate=0.001"]
    fp16 = diagnose(finding, RunFacts(precision="fp16"), language).remedies
    assert any("mixed_precision" in text for text in fp16)
