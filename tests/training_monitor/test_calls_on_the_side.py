"""A forward on the side leaves a stranger's model as it was, whatever that remembers, and their calls unharmed."""

import itertools
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.on_the_side import on_the_side

F = nn.functional
V, T, B, D = 11, 6, 3, 8

numpy = pytest.importorskip("numpy")


class Deep(nn.Module):
    """Counts in nested containers, and in an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.recent = {"steps": [[0]]}, deque([0], 2)
        self.state = SimpleNamespace(calls=0, sums=[0.0])

    def forward(self, x: Tensor) -> Tensor:
        self.table["steps"][0][0] += 1
        self.recent.append(self.table["steps"][0][0])
        self.state.calls += 1
        self.state.sums.append(float(self.state.calls))
        return x * (1 + self.state.calls / 100 + self.table["steps"][0][0] / 50 + sum(self.recent) / 70)  # type: ignore[no-any-return]


class Slots:
    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class Kinds(nn.Module):
    """Other containers than the usual ones, and a layer that comes with every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.counter, self.layers = Slots(), Counter[str](), nn.ModuleList()
        self.ordered, self.lists = OrderedDict(first=0), defaultdict[str, list[int]](list)

    def forward(self, x: Tensor) -> Tensor:
        self.slots.calls += 1
        self.counter["calls"] += 1
        self.ordered["first"] += 1
        self.lists["calls"].append(1)
        self.layers.append(nn.Identity())
        calls = self.slots.calls + self.counter["calls"] + self.ordered["first"] + len(self.lists["calls"])
        result: Tensor = x * (1 + calls / 100 + len(self.layers) / 70)
        return result


class Iterating(nn.Module):
    """What it holds cannot be put back: it is not called on the side."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + next(self.numbers) / 100)


ELSEWHERE = torch.zeros(2)


class Tensors(nn.Module):
    """Writes past autograd: into an attribute, one in a list, and one of the module's file."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.listed = torch.zeros(3), [torch.zeros(2)]
        self.register_buffer("late", None)
        self.late: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        self.count.data.add_(1)
        self.listed[0][1] += 1
        ELSEWHERE[0] += 1
        self.late = torch.ones(1) if self.late is None else self.late + 1
        return x * (1 + (self.count.sum() + self.listed[0].sum() + ELSEWHERE.sum() + self.late) / 100)


class Generators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.python, self.numpy = random.Random(1), numpy.random.default_rng(1)
        self.old, self.array = numpy.random.RandomState(1), numpy.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        self.array += 1
        return x + self.python.random() + self.numpy.random() + self.old.rand() + float(self.array[0]) / 100  # type: ignore[no-any-return]


class Expanded(nn.Module):
    """A buffer that cannot be written to, and numbers drawn from everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("wide", torch.ones(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape) / 9 + numpy.random.rand() / 9 + random.random() / 9  # type: ignore[no-any-return]


class Teacher(nn.Module):
    """Follows the student with every forward."""

    def __init__(self, follow: Callable[[nn.Parameter, nn.Parameter], object]) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(D, D), nn.Linear(D, D).requires_grad_(False)
        self.follow = follow

    def forward(self, x: Tensor) -> Tensor:
        for followed, own in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
            self.follow(own, followed)
        return self.student(x) + self.teacher(x)  # type: ignore[no-any-return]


@torch.no_grad()
def in_place(own: nn.Parameter, followed: nn.Parameter) -> None:
    own.mul_(0.9).add_(followed, alpha=0.1)


def past_autograd(own: nn.Parameter, followed: nn.Parameter) -> None:
    own.data.mul_(0.9).add_(followed.data, alpha=0.1)


def exchanged(own: nn.Parameter, followed: nn.Parameter) -> None:
    own.data = own.data * 0.9 + followed.data * 0.1


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "nested": Deep,
    "kinds": Kinds,
    "iterator": Iterating,
    "tensors": Tensors,
    "generators": Generators,
    "expanded": Expanded,
    "teacher in place": lambda: Teacher(in_place),
    "teacher past autograd": lambda: Teacher(past_autograd),
    "teacher exchanged": lambda: Teacher(exchanged),
}


class Language(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.embed, self.middle, self.head = nn.Embedding(V, D), middle, nn.Linear(D, V)

    def forward(self, ids: Tensor, *others: Any) -> Tensor:
        return self.head(self.middle(self.embed(ids)))  # type: ignore[no-any-return]


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def trained(middle: Callable[[], nn.Module], watched: bool) -> list[Tensor]:
    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)
    ELSEWHERE.zero_()
    model = Language(middle())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = LoopMonitor(model, optimizer, sinks=[])
    for step in range(8):
        ids = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(step))
        loss = loss_of(model, ids) * (torch.nan if step == 4 else 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        if watched:
            monitor.step(loss)
        if step != 4:
            optimizer.step()
        optimizer.zero_grad()
    drawn = [torch.rand(1), torch.tensor([random.random(), numpy.random.rand()])]
    return [*(each.detach() for each in model.parameters()), *model.buffers(), ELSEWHERE.clone(), *drawn]


@pytest.mark.parametrize("middle", MIDDLES)
def test_watching_changes_no_bit_when_the_model_remembers_things_its_own_way(middle: str) -> None:
    alone, watched = trained(MIDDLES[middle], False), trained(MIDDLES[middle], True)
    assert all(torch.equal(one, other) for one, other in zip(alone, watched, strict=True))


def test_retained_graph_can_be_walked_again_when_the_forward_writes_to_a_buffer() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(D, D)
            self.register_buffer("count", torch.zeros(D))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.count.add_(1)  # type: ignore[operator]

    model = Language(Counting())
    monitor = LoopMonitor(model, sinks=[])
    loss = loss_of(model, torch.randint(0, V, (B, T)))
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    monitor.step(loss)
    loss.backward()  # type: ignore[no-untyped-call]


def test_weights_that_somebody_s_autocast_has_cast_are_used_on_after_a_call_on_the_side() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        with torch.no_grad():
            layer.weight.add_(1)
        with on_the_side(layer):
            layer(x)
        assert torch.equal(layer(x), before)


def test_memory_that_was_made_in_the_block_is_written_to_without_a_copy() -> None:
    model, before = nn.BatchNorm1d(2), torch.ones(2)
    with on_the_side(model):
        model(torch.randn(3, 2))
        made = torch.zeros(2).add_(1)
        before[:1] = 5
        before += made
    assert made.tolist() == before.tolist() == [1.0, 1.0]
    assert model.running_mean is not None
    assert model.running_mean.tolist() == [0.0, 0.0]


class Cached(Language):
    """Adds to a cache, and takes its next batch itself where it is given an iterator."""

    def forward(self, ids: Any, *others: Any) -> Tensor:
        others[0].layers[0].seen.append(1)
        return super().forward(ids if isinstance(ids, Tensor) else next(ids))


def test_cache_and_iterator_are_used_once_when_the_loop_hands_them_over() -> None:
    model: Any = Cached(nn.Identity())
    batches = iter([torch.randint(0, V, (B, T)) for _ in range(3)])
    monitor = LoopMonitor(model, sinks=[])
    for ids in (next(batches), batches):
        cache = SimpleNamespace(layers=[SimpleNamespace(seen=[])])
        loss = model(ids, cache).sum() * torch.nan
        loss.backward()
        monitor.step(loss)
        assert cache.layers[0].seen == [1]
    assert len(list(batches)) == 1


class Hostile:
    """Refuses to be looked at."""

    def values(self) -> None:
        raise RuntimeError

    @property
    def logits(self) -> None:
        raise RuntimeError


ODD: dict[str, Callable[[], object]] = {
    "sparse": lambda: torch.eye(3, dtype=torch.int64).to_sparse(),
    "csr": lambda: torch.eye(3, dtype=torch.int64).to_sparse_csr(),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2).long()], layout=torch.jagged),
    "hostile": Hostile,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("odd", ODD)
def test_call_suffers_nothing_when_arguments_and_outputs_refuse_to_be_looked_at(odd: str) -> None:
    class Strange(Language):
        def forward(self, *inputs: Any) -> Any:
            return super().forward(inputs[1]), Hostile(), inputs[0]

    model: Any = Strange(nn.Identity())
    monitor = LoopMonitor(model, sinks=[])
    for _ in range(2):
        loss = model(ODD[odd](), torch.zeros(B, T, dtype=torch.int64))[0].mean()
        loss.backward()
        monitor.step(loss)


def test_forwards_within_transforms_are_not_kept() -> None:
    model, ids = Language(nn.Identity()), torch.zeros(B, T, dtype=torch.int64)
    monitor = LoopMonitor(model, sinks=[])
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(given: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(model, given, (row[None],)).square().mean()  # type: ignore[no-any-return]

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, ids)
    for name, weight in model.named_parameters():
        weight.grad = each[name].mean(0)
    monitor.step(1.0)


@pytest.mark.parametrize("loss", [None, torch.ones(2), torch.zeros(0), torch.ones((), dtype=torch.complex64)])
def test_loss_that_is_not_one_number_is_refused_in_one_sentence(loss: Any) -> None:
    with pytest.raises(ValueError, match="one real number, got"):
        LoopMonitor(nn.Linear(1, 1), sinks=[]).step(loss)
