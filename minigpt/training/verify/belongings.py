"""config.yaml and tokenizer.json, which carry no checksum: whether they can be read, and belong to the checkpoints."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.checkpoint.damage import DamagedError, opened
from minigpt.config.dump import differences
from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.tokenizer import Tokenizer
from minigpt.errors import MiniGPTError
from minigpt.training.folder import CONFIG_NAME, TOKENIZER_NAME
from minigpt.training.verify.checkpoints import Vouched
from minigpt.training.verify.report import Checked

WAY_OUT = {
    CONFIG_NAME: "--resume with --config and the same --set writes it anew",
    TOKENIZER_NAME: "the prepared corpus has the run's own, and --resume writes it anew",
}


@dataclass(frozen=True)
class Belongings:
    """What lies beside the checkpoints."""

    files: list[Checked]
    config: RunConfig | None
    tokenizer_id: str | None


def read_belongings(folder: Path, *, required: bool = False) -> Belongings:
    """What can be told of them alone; one that is not there is none of ours unless they are `required`."""
    files: list[Checked] = []
    config, tokenizer_id = None, None
    config_path, tokenizer_path = folder / CONFIG_NAME, folder / TOKENIZER_NAME
    if required or os.path.lexists(config_path):
        try:
            with opened(config_path):
                config = load_config(str(config_path.absolute())).config
            files.append(Checked(CONFIG_NAME, "good", "a whole configuration"))
        except MiniGPTError as error:
            files.append(_damaged(CONFIG_NAME, _what(error)))
    if required or os.path.lexists(tokenizer_path):
        try:
            with opened(tokenizer_path):
                tokenizer = Tokenizer.load(tokenizer_path)
            tokenizer_id = tokenizer.id
            files.append(Checked(TOKENIZER_NAME, "good", f"{tokenizer.vocab_size:,} tokens"))
        except MiniGPTError as error:
            files.append(_damaged(TOKENIZER_NAME, _what(error)))
    return Belongings(files, config, tokenizer_id)


def misfits_told(files: list[Checked], vouched: Sequence[Vouched]) -> tuple[list[Checked], list[Vouched]]:
    """`files` and `vouched` with each misfit laid to one file: what fits to no checkpoint is wrong itself, and a
    checkpoint that does not fit where others do is another run's."""
    for name in (CONFIG_NAME, TOKENIZER_NAME):
        misfits = [each.misfits.get(name) for each in vouched]
        if vouched and all(misfits):
            files = [
                _damaged(name, f"no checkpoint fits to it: {misfits[-1]}") if each.file == name else each
                for each in files
            ]
            vouched = [replace(each, misfits={**each.misfits, name: ""}) for each in vouched]
    strangers = {each.path.name: "; ".join(filter(None, each.misfits.values())) for each in vouched}
    files = [
        Checked(each.file, "damaged", f"another run's: {strangers[each.file]}; move it away")
        if strangers.get(each.file)
        else each
        for each in files
    ]
    return files, [each for each in vouched if not strangers[each.path.name]]


def edits_told(files: list[Checked], config: RunConfig | None, newest: Vouched | None) -> list[Checked]:
    """`files`, with a note on config.yaml where it is not what the newest checkpoint was trained with."""
    if config is None or newest is None or newest.config is None:
        return files
    changes = differences(newest.config, config)
    if not changes:
        return files
    text = f"not what {newest.path.name} was trained with: {'; '.join(changes[:3])}"
    return [
        Checked(CONFIG_NAME, "note", text) if each == files[0] and each.status == "good" else each
        for each in files
    ]


def _damaged(name: str, text: str) -> Checked:
    return Checked(name, "damaged", f"{text}; {WAY_OUT[name]}")


def _what(error: MiniGPTError) -> str:
    text = error.what if isinstance(error, DamagedError) else str(error)
    return " ".join(text.split())
