import importlib.util
from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import ConfigError, MissingExtraError
from minigpt.lab.bench.contenders import DEFAULT, chosen, contender

REPOSITORY = Path(__file__).parents[3]


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As on a machine where `package` is not installed."""
    found = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == package else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_contender_is_another_trees_when_a_folder_follows_its_name() -> None:
    one = contender(f"minigpt:model.qk_norm=true,optimizer.name=muon@{REPOSITORY}")
    assert (one.name, one.tree) == ("minigpt", REPOSITORY)
    assert one.overrides == ("model.qk_norm=true", "optimizer.name=muon")
    assert one.is_ours


def test_contenders_list_of_values_keeps_its_commas() -> None:
    one = contender("minigpt:optimizer.betas=[0.9,0.99],model.qk_norm=true")
    assert one.overrides == ("optimizer.betas=[0.9,0.99]", "model.qk_norm=true")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nanogtp", "did you mean nanogpt?"),
        ("zebra", "use minigpt, minigpt-preset, nanogpt"),
        ("", "there is no such contender"),
        ("hf:model.qk_norm=true", "only minigpt and minigpt-preset take"),
        ("litgpt@/tmp", "only minigpt and minigpt-preset take"),
        ("minigpt:qk_norm", "'qk_norm' sets nothing"),
        ("minigpt@/nowhere/at/all", "/nowhere/at/all has no package minigpt"),
    ],
)
def test_contender_is_refused_in_one_line_when_it_cannot_be(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        contender(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_peer_is_left_out_with_a_line_when_nobody_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "litgpt")
    there, lines = chosen(None)
    assert [one.spec for one in there] == [name for name in DEFAULT if name != "litgpt"]
    assert lines == ["left out: the contender litgpt needs the package litgpt: pip install 'minigpt[bench]'"]


def test_missing_peer_is_an_error_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "transformers")
    with pytest.raises(MissingExtraError, match=r"the contender hf needs .*minigpt\[bench\]"):
        chosen(["minigpt", "hf"])


def test_same_contender_twice_is_refused_but_not_with_other_settings() -> None:
    with pytest.raises(ConfigError, match="twice"):
        chosen(["minigpt", "minigpt"])
    assert len(chosen(["minigpt", "minigpt:model.qk_norm=true"])[0]) == 2
