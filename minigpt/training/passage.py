"""Which text a sequence of a batch is."""

from dataclasses import dataclass
from pathlib import Path

from minigpt.data.loader import Batch
from minigpt.data.shards import DocumentIndex
from minigpt.errors import DataError
from minigpt.training.run import Run
from minigpt.training_monitor.blame import Blame

HEAD_TOKENS = 64
HEAD_CHARACTERS = 120


@dataclass(frozen=True)
class Passage:
    """Where a sequence of the batch comes from."""

    document: str
    """Source of the text, as the corpus names it; "" where that cannot be told any more."""
    offset: int
    """Of the sequence's first token within the document, in tokens."""
    text: str
    """What the sequence begins with, decoded, on one line."""


def passage_of(run: Run, batch: Batch, row: int) -> Passage:
    """The text of one sequence."""
    head = run.tokenizer.decode(batch.inputs_BT[row, :HEAD_TOKENS].tolist())
    text = " ".join(head.split())[:HEAD_CHARACTERS]
    try:
        start = run.loader.windows.start(batch.window_indices[row])
        folder = Path(run.identity["corpus"]["folder"])
        document, offset = DocumentIndex(folder, "train").at(start)
    except (DataError, IndexError):  # the cache was cleared or damaged, or the batch is no window of it
        return Passage("", 0, text)
    return Passage(document, offset, text)


def struck(blame: Blame, batch: Batch) -> tuple[int, int]:
    """(sequence, token within it) of the first non-finite number; (0, 0) where its tensor does not tell."""
    B, T = batch.inputs_BT.shape
    index, shape = blame.index, blame.shape
    if shape[:1] == (B * T,) and index:
        return index[0] // T, index[0] % T
    if shape[:1] != (B,) or not index:
        return 0, 0
    time = next((axis for axis in (1, 2) if shape[axis : axis + 1] == (T,)), None)
    return index[0], 0 if time is None else index[time]
