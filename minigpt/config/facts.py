"""What the training monitor is told of a run by its configuration."""

from minigpt.config.run_config import RunConfig
from minigpt.training_monitor.run_facts import RunFacts


def facts_of(
    config: RunConfig, *, precision: str | None, vocab_size: int | None, unigram_loss: float | None = None
) -> RunFacts:
    """The facts that stand in `config`; precision and vocabulary as they turned out, None where that is not known.

    `in_force`: what the monitor need not advise, being so already.
    """
    switches = {
        "model.qk_norm": config.model.qk_norm,
        "training.check_grad_flow": config.training.check_grad_flow,
    }
    return RunFacts(
        warmup_steps=config.schedule.warmup_steps,
        max_grad_norm=config.training.max_grad_norm,
        learning_rate=config.optimizer.learning_rate,
        precision=precision,
        in_force=frozenset(
            [
                *(f"{key}=true" for key, on in switches.items() if on),
                f"model.norm_position={config.model.norm_position}",
            ]
        ),
        vocab_size=vocab_size,
        unigram_loss=unigram_loss,
        optimizer=config.optimizer.name,
        adam_eps=config.optimizer.eps,
        weight_decay=config.optimizer.weight_decay,
    )
