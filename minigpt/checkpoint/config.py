"""When checkpoints are written and which of them stay."""

from typing import Annotated, Literal

from pydantic import Field

from minigpt.schema import Config, Float, Int


class CheckpointConfig(Config):
    """When checkpoints are written and which of them stay."""

    every_steps: Annotated[Int, Field(ge=1)] = 200
    """Steps between checkpoints."""
    every_minutes: Annotated[Float, Field(gt=0)] | None = 15.0
    """Also after this many minutes without one (slow machines); null: by steps only."""
    keep_last: Annotated[Int, Field(ge=1)] = 2
    """Newest checkpoints to keep."""
    keep_every_steps: Annotated[Int, Field(ge=1)] | None = None
    """Also keep each checkpoint whose step is a multiple of this; null: none."""
    keep_best: bool = True
    """Also keep the checkpoint with the best validation loss."""
    on_write_error: Literal["stop", "go_on"] = "stop"
    """When the disk refuses a checkpoint: stop there, or go_on training and try again until it is written (a kill
    then costs the steps since the last one that was). The first checkpoint of a run has to be written either way."""
