import json
from pathlib import Path

import pytest
import torch

from minigpt.config.load import load_config
from minigpt.errors import ConfigError
from minigpt.lab.time_to_loss.command import run
from minigpt.lab.time_to_loss.curve import Curve
from minigpt.lab.time_to_loss.peer import build_peer
from minigpt.lab.time_to_loss.recipe import Recipe, overrides_for
from minigpt.lab.time_to_loss.trained import TrainingFailedError, curve_of_run, trained
from tests.training.tiny_run import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop.set_up(tmp_path)


def test_peer_learns_and_is_evaluated_on_the_way(workshop: Workshop) -> None:
    overrides = overrides_for(
        Recipe("nanogpt"), workshop.config_path, [], steps=10, seed=0, micro_batch_size=4
    )
    config = load_config(workshop.config_path, [*overrides, "optimizer.learning_rate=0.01"]).config
    peer = build_peer(config)
    curve = peer.train("nanogpt")
    assert [step for step, _ in curve.losses] == [3, 6, 9, 10]
    assert len(curve.step_seconds) == 10
    assert curve.losses[-1][1] < curve.losses[0][1] < 5.7
    again = build_peer(config).train("nanogpt")
    assert again.losses == curve.losses


def test_peers_validation_loss_is_that_of_its_own_forward(workshop: Workshop) -> None:
    overrides = overrides_for(
        Recipe("nanogpt"), workshop.config_path, [], steps=1, seed=0, micro_batch_size=4
    )
    peer = build_peer(load_config(workshop.config_path, [*overrides, "training.eval_tokens=64"]).config)
    windows = [peer._windows(peer.prepared.validation).get(index) for index in range(4)]
    inputs_BT, targets_BT = (torch.stack([window[part] for window in windows]) for part in (0, 1))
    with torch.no_grad():
        assert peer.validation_loss() == pytest.approx(peer.model(inputs_BT, targets_BT).item(), abs=1e-6)


def test_curve_of_a_run_is_read_from_its_records(workshop: Workshop, tmp_path: Path) -> None:
    assert workshop.train(tmp_path / "run") == 0
    curve = curve_of_run(tmp_path / "run", "preset", 7)
    assert (curve.steps, len(curve.step_seconds), curve.seed) == (12, 12, 7)
    assert [step for step, _ in curve.losses] == [5, 10, 12]
    assert curve.parameters > 256 * 16


def test_training_that_is_there_is_not_trained_again_unless_it_was_another(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "one", Recipe("preset")
    folder.mkdir()
    kept = Curve("preset", 0, 5, 1, (1.0,), ((5, 2.0),))
    kept.save(folder / "curve.json")
    asked = json.dumps({"recipe": "preset", "preset": "small", "overrides": ["a.b=1"]})
    (folder / "order.json").write_text(asked, encoding="utf-8")
    assert trained(recipe, "small", ["a.b=1"], 0, folder) == kept
    with pytest.raises(
        TrainingFailedError, match=r"training of preset ended with exit code 2.*model.nonsense is not a key"
    ):
        trained(recipe, "small", ["model.nonsense=1"], 0, folder)
    assert not (folder / "curve.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "1"], "use 2 steps or more"),
        (["--shares", "1.5"], "shares of 0 to 1"),
        (["--peer", "llama"], "there is no such peer; use nanogpt"),
        (["--ablate", "horoscope"], "there is no such switch; there are AdamW"),
    ],
)
def test_command_refuses_what_it_does_not_know_in_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        run(arguments, "")
    assert "\n" not in str(raised.value)
