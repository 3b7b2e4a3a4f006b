"""Layer groups, and the way of a device's numbers to the host."""

from minigpt.training_monitor.groups import parameter_groups_by_layer, plain_name


def test_groups_are_the_layers_of_a_gpt() -> None:
    names = [
        "embedding.weight",
        "blocks.0.attention.query.weight",
        "blocks.10.mlp.up.weight",
        "norm.weight",
        "head.weight",
    ]
    assert list(parameter_groups_by_layer(names).values()) == [
        "embedding",
        "blocks.0",
        "blocks.10",
        "norm",
        "head",
    ]


def test_groups_keep_the_modules_beside_a_nested_stack_apart() -> None:
    names = [
        "transformer.wte.weight",
        "transformer.h.3.ln_1.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ]
    expected = ["transformer.wte", "transformer.h.3", "transformer.ln_f", "lm_head"]
    assert list(parameter_groups_by_layer(names).values()) == expected


def test_groups_forget_the_prefixes_of_wrappers() -> None:
    assert plain_name("module._orig_mod.blocks.0.norm.weight") == "blocks.0.norm.weight"
    assert parameter_groups_by_layer(["_orig_mod.0.weight", "weight"]) == {
        "_orig_mod.0.weight": "0",
        "weight": "weight",
    }
