"""What happens at which step of the runs that are compared."""

from dataclasses import dataclass

from minigpt.config.run_config import RunConfig
from minigpt.errors import ConfigError

FEWEST_STEPS = 9
"""Below, no step lies between two checkpoints."""
EVALUATION_STEPS = 4
"""An evaluation reads at most as many tokens as so many steps: its cost is no part of the question."""


@dataclass(frozen=True)
class Rhythm:
    """`steps` of the run, with checkpoints and evaluations so often that each is met on both sides of a resume."""

    steps: int
    finishes: bool
    """Whether the run is over after them."""

    @property
    def checkpoint_every(self) -> int:
        return self.steps // 3

    @property
    def evaluate_every(self) -> int:
        """Off the checkpoints' grid, and not at the last step: a run that is told to stop there leaves it out."""
        every = self.checkpoint_every + 1
        return every if self.steps % every else every + 1

    @property
    def kill_in(self) -> int:
        """The step in which SIGKILL comes: the one before it is in the records and in no checkpoint."""
        return 2 * self.checkpoint_every

    @property
    def terminate_in(self) -> int:
        """The step in which SIGTERM comes."""
        return self.kill_in + 1

    def settings(self, config: RunConfig) -> list[str]:
        """The overrides that make a run of `config` keep this rhythm. None changes what a step computes."""
        tokens = EVALUATION_STEPS * config.training.tokens_per_step
        return [
            f"training.eval_every_steps={self.evaluate_every}",
            f"training.eval_tokens={min(config.training.eval_tokens or tokens, tokens)}",
            "training.sample_tokens=0",
            f"checkpoint.every_steps={self.checkpoint_every}",
            "checkpoint.every_minutes=null",
            # They judge the clock, and no two runs agree on that.
            "monitor.throughput_drop.enabled=false",
            "monitor.memory_growth.enabled=false",
            "monitor.wandb.project=null",
        ]


def rhythm_of(config: RunConfig, steps: int) -> Rhythm:
    """The first `steps` of the run, or all of them if there are fewer.

    Raises:
        ConfigError: the run, or `steps`, is too short to be interrupted between two checkpoints.
    """
    if steps < FEWEST_STEPS:
        raise ConfigError(
            f"--steps {steps}: too few to be interrupted twice between checkpoints; use {FEWEST_STEPS} or more"
        )
    length = config.training.max_steps
    if length < FEWEST_STEPS:
        raise ConfigError(
            f"training.max_steps = {length}: a run of fewer than {FEWEST_STEPS} steps is too short to be interrupted "
            "twice between checkpoints; give it more with --set training.max_steps=..."
        )
    return Rhythm(min(steps, length), finishes=length <= steps)
