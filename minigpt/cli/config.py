"""`minigpt config`: shows, lists and describes configurations."""

import typer

from minigpt.cli.options import ConfigOption, SetOption

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def config(context: typer.Context) -> None:
    """Shows, lists, describes configurations.

    \b
    minigpt config list                                         the presets
    minigpt config show --config medium                         every key of one, with what follows from it
    minigpt config show --set training.max_steps=12             the same, with an override
    minigpt config show --config small > mine.yaml              a file to start your own from
    minigpt config schema > schema.json                         completion and checks for your editor
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("show")
def show(config: ConfigOption = "small", overrides: SetOption = None) -> None:
    """Prints every key with its value.

    The output is complete YAML, to start your own file from; what follows from the values is in comments.

    \b
    minigpt config show --config medium
    minigpt config show --config my.yaml --set optimizer.learning_rate=1e-3
    """
    from minigpt.config.derived import derived
    from minigpt.config.dump import to_yaml
    from minigpt.config.load import load_config

    loaded = load_config(config, overrides or ())
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo("".join(f"# {line}\n" for line in derived(loaded.config)))
    typer.echo(to_yaml(loaded.config), nl=False)


@app.command("list")
def list_presets() -> None:
    """Prints the presets and what they are for."""
    from minigpt.config.presets import presets

    found = presets().values()
    width = max(len(preset.name) for preset in found)
    for preset in found:
        typer.echo(f"{preset.name:{width}}  {preset.purpose}")


@app.command("schema")
def schema() -> None:
    """Prints the JSON schema, for editors.

    \b
    minigpt config schema > schema.json
    and, as the first line of your YAML, for editors with the YAML language server:
    # yaml-language-server: $schema=schema.json
    """
    import json

    from minigpt.config.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
