"""The configuration: plain dataclasses that pydantic can validate strictly."""

import subprocess
import sys
from dataclasses import replace

import pytest
from pydantic import BaseModel, Field, ValidationError

from minigpt.training_monitor.config import (
    ExplodingConfig,
    Fp16Config,
    LossSpikeConfig,
    MonitorConfig,
    NonFiniteConfig,
    PolicyConfig,
    VanishingConfig,
)


class Outer(BaseModel):
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)


def test_config_fills_the_rest_when_pydantic_reads_a_part() -> None:
    read = Outer.model_validate(
        {"monitor": {"loss_spike": {"z_score": 5}, "gradient_vanishing": {"floor": "1e-8"}}}
    )
    assert read.monitor.loss_spike == LossSpikeConfig(z_score=5.0)
    assert read.monitor.loss_spike.min_ratio == 1.04
    assert read.monitor.gradient_vanishing == VanishingConfig(floor=1e-8)
    assert read.model_dump()["monitor"]["gradient_exploding"]["min_ratio"] == 4.0


@pytest.mark.parametrize(
    "bad",
    [
        {"flor": 1e-6},
        {"gradient_vanishing": {"flor": 1e-6}},
        {"gradient_vanishing": {"floor": -1}},
        {"gradient_vanishing": {"floor": float("nan")}},
        {"gradient_vanishing": {"first_step": -1}},
        {"gradient_exploding": {"min_ratio": 1.0}},
        {"loss_spike": {"readmit_steps": 3}},
        {"loss_spike": {"close_z_score": 9.0}},
        {"policy": {"max_skipped_fraction": 2}},
        {"non_finite": {"persist_steps": 0}},
        {"language": "fr"},
    ],
)
def test_config_is_refused_by_pydantic_when_a_value_is_wrong(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Outer.model_validate({"monitor": bad})


def test_config_raises_value_error_without_pydantic_when_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"gradient_vanishing\.drop_ratio = 2 must be between 0 and 1"):
        VanishingConfig(drop_ratio=2)
    with pytest.raises(ValueError, match=r"loss_spike\.min_history = 1 must be >= 4"):
        LossSpikeConfig(min_history=1)
    with pytest.raises(ValueError, match=r"gradient_exploding\.z_score"):
        ExplodingConfig(z_score=0)
    with pytest.raises(ValueError, match=r"policy\.skipped_window"):
        PolicyConfig(skipped_window=0)
    with pytest.raises(ValueError, match=r"non_finite\.persist_steps"):
        NonFiniteConfig(persist_steps=0)
    with pytest.raises(ValueError, match=r"fp16\.overflow_window"):
        Fp16Config(overflow_window=0)
    with pytest.raises(ValueError, match=r"monitor\.language"):
        replace(MonitorConfig(), language="fr")  # type: ignore[arg-type]


def test_schema_describes_every_field() -> None:
    schema = Outer.model_json_schema()
    bare = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, entry in definition["properties"].items()
        if not entry.get("description")
    ]
    assert bare == []
    assert all(definition["additionalProperties"] is False for definition in schema["$defs"].values())


def test_package_imports_no_torch_until_it_is_used() -> None:
    code = (
        "import sys; import minigpt.training_monitor, minigpt.training_monitor.config, "
        "minigpt.training_monitor.monitor as m; m.TrainingMonitor(); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_package_names_what_it_has_when_asked_for_another() -> None:
    import minigpt.training_monitor as package

    assert callable(package.check_grad_flow)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = package.nothing_like_it
