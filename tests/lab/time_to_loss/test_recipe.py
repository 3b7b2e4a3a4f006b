import pytest

from minigpt.config.load import load_config
from minigpt.errors import ConfigError
from minigpt.lab.time_to_loss.recipe import Recipe, overrides_for, recipe_named
from minigpt.lab.time_to_loss.switches import SWITCHES, ablations


def test_recipe_splits_at_the_commas_that_a_key_follows() -> None:
    recipe = recipe_named("x:optimizer.betas=[0.9,0.99],schedule.kind=wsd")
    assert recipe.overrides == ("optimizer.betas=[0.9,0.99]", "schedule.kind=wsd")
    assert recipe_named("preset") == Recipe("preset")


@pytest.mark.parametrize("spec", ["x:", "x:abc", ":a.b=1", ""])
def test_recipe_that_sets_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="sets nothing"):
        recipe_named(spec)


def test_preset_keeps_its_warmups_share_of_the_steps() -> None:
    config = load_config(
        "small", overrides_for(Recipe("preset"), "small", [], steps=150, seed=3, micro_batch_size=8)
    )
    whole = load_config("small").config
    assert config.config.schedule.warmup_steps == round(
        150 * whole.schedule.warmup_steps / whole.training.max_steps
    )
    assert (config.config.training.max_steps, config.config.training.seed) == (150, 3)
    assert config.config.optimizer == whole.optimizer


def test_peer_is_adamw_without_what_the_preset_chose_unless_it_is_told_otherwise() -> None:
    plain, faster = (
        load_config(
            "small", overrides_for(recipe_named(spec), "small", [], steps=100, seed=0, micro_batch_size=8)
        ).config
        for spec in ("nanogpt", "nanogpt:optimizer.learning_rate=2e-3,schedule.warmup_steps=7")
    )
    assert (plain.optimizer.name, plain.optimizer.learning_rate) == ("adamw", 1e-3)
    assert (plain.schedule.kind, plain.schedule.warmup_steps) == ("cosine", 5)
    assert (faster.optimizer.learning_rate, faster.schedule.warmup_steps) == (2e-3, 7)


def test_every_switch_changes_the_preset_small() -> None:
    whole = load_config("small").config
    for recipe in ablations(None):
        assert load_config("small", recipe.overrides).config != whole, recipe.name


def test_switches_are_chosen_by_a_part_of_their_name() -> None:
    assert [recipe.name for recipe in ablations(["QK"])] == ["no QK-norm"]
    assert len(ablations(None)) == len(SWITCHES)
