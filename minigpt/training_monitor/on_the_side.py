"""A call of somebody else's model, of which their training must not notice anything."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from minigpt.training_monitor.kept_attributes import attributes_kept
from minigpt.training_monitor.no_collectives import no_collectives
from minigpt.training_monitor.probes.own_hook import without_own_hooks
from minigpt.training_monitor.untouched import untouched
from minigpt.training_monitor.writes_undone import writes_undone


@contextmanager
def on_the_side(model: nn.Module, given: object = None) -> Iterator[None]:
    """Nobody hears the calls of this block, neither the other ranks nor the monitor, and what they change in the model,
    in what it is `given`, and in the state of random generators is undone.

    Raises:
        CollectiveRefusedError: the model's weights lie on several ranks.
    """
    with ExitStack() as stack:
        # What restores the buffers comes last: batch_norm's are written without anybody seeing it.
        for context in (no_collectives, without_own_hooks, untouched):
            stack.enter_context(context(model))
        stack.enter_context(attributes_kept(model, given))
        stack.enter_context(writes_undone(model))
        yield
