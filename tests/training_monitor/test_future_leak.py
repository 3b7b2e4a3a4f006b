"""A language model that sees the tokens it should predict is told; no other model ever is."""

# B batch, T time, V vocabulary

import json
from collections.abc import Callable, Container
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.training_monitor.causality import influence_of_the_last, predicts_the_next, targets_of
from minigpt.training_monitor.causality_beat import CausalityBeat
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.future_leak import FutureLeak, FutureLeakConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.small_models import number_of_hooks

V, T, MASK = 48, 12, 47


class Transformer(nn.Module):
    """One layer over V tokens, with a causal mask or without, and its output in one of several forms."""

    def __init__(self, *, causal: bool, form: str = "logits", width: int = V) -> None:
        super().__init__()
        self.causal, self.form = causal, form
        self.embed, self.position = nn.Embedding(V, 16), nn.Embedding(64, 16)
        self.norm = nn.LayerNorm(16)
        self.mix, self.dropout, self.head = nn.Linear(16, 48), nn.Dropout(0.1), nn.Linear(16, width)

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Any:
        x = self.embed(ids) + self.position.weight[: ids.shape[1]]
        q, k, v = self.mix(self.norm(x)).chunk(3, -1)
        logits = self.head(x + self.dropout(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)))
        if self.form == "logits":
            return logits
        assert targets is not None
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return (logits, loss) if self.form == "tuple" else {"loss": loss, "logits": logits}


def windows(step: int, batch: int = 4) -> tuple[Tensor, Tensor]:
    both = torch.randint(0, MASK, (batch, T + 1), generator=torch.Generator().manual_seed(step))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def plain(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def smoothed(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), label_smoothing=0.1)


def by_tuple(model: Any, inputs: Tensor, targets: Tensor) -> Any:
    return model(inputs, targets)[1]


def by_dict(model: Any, inputs: Tensor, targets: Tensor) -> Any:
    return model(ids=inputs, targets=targets)["loss"]


def with_bf16(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return plain(model, inputs, targets)


def shifted_inside(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs)[:, :-1].flatten(0, 1), inputs[:, 1:].flatten())


def masked(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """BERT's task: a few tokens are hidden, and to be found."""
    hidden = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    return F.cross_entropy(
        model(inputs.masked_fill(hidden, MASK)).flatten(0, 1), inputs.masked_fill(~hidden, -100).flatten()
    )


def denoised(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """All tokens are asked for, of a text with a few wrong ones."""
    wrong = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    return F.cross_entropy(model(inputs.masked_fill(wrong, 5)).flatten(0, 1), inputs.flatten())


def backwards(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """A model of text from right to left: rightly sees what comes later."""
    return F.cross_entropy(model(targets).flatten(0, 1), inputs.flatten())


def tagged(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), (inputs * 7 % V).flatten())


def regressed(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(model(inputs), torch.zeros(*inputs.shape, V))


def classified(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).mean(1), inputs[:, 0])


Loss = Callable[[Any, Tensor, Tensor], Any]
LANGUAGE_MODELS: list[tuple[Loss, str]] = [
    (plain, "logits"),
    (smoothed, "logits"),
    (by_tuple, "tuple"),
    (by_dict, "dict"),
    (with_bf16, "logits"),
    (shifted_inside, "logits"),
]
OTHERS: list[Loss] = [masked, denoised, backwards, tagged, regressed, classified]


def watched(model: Any, loss_of: Loss, steps: int = 2, **facts: Any) -> RecordingSink:
    torch.manual_seed(0)
    sink = RecordingSink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    monitor = LoopMonitor(model, optimizer, sinks=[sink], **facts)
    for step in range(1, steps + 1):
        loss = loss_of(model, *windows(step))
        loss.backward()
        monitor.step(loss)
        optimizer.step()
        optimizer.zero_grad()
    monitor.close()
    assert number_of_hooks(model) == 0
    return sink


@pytest.mark.parametrize(("loss_of", "form"), LANGUAGE_MODELS)
def test_language_model_without_a_mask_is_told_at_its_first_step(loss_of: Loss, form: str) -> None:
    sink = watched(Transformer(causal=False, form=form), loss_of)
    assert [signals.future_influence is not None for signals in sink.signals] == [True, False]
    assert (sink.signals[0].future_influence or 0) > 3e-3
    (event,) = [event for event in sink.events if event.name == "future_leak" and event.interrupts]
    assert event.step == 1
    assert event.data["causes"][0] == "sees_the_future"


@pytest.mark.parametrize(("loss_of", "form"), LANGUAGE_MODELS)
def test_causal_language_model_is_exactly_causal(loss_of: Loss, form: str) -> None:
    sink = watched(Transformer(causal=True, form=form), loss_of)
    assert [signals.future_influence for signals in sink.signals] == [0.0, None]


@pytest.mark.parametrize("loss_of", OTHERS)
def test_model_of_another_task_is_never_accused_though_it_sees_everything(loss_of: Loss) -> None:
    sink = watched(Transformer(causal=False), loss_of, steps=4)
    assert [signals.future_influence for signals in sink.signals] == [None] * 4


def test_targets_that_the_loop_tells_do_where_the_logits_are_not_seen() -> None:
    class Hidden(Transformer):
        def forward(self, *given: Any, **named: Any) -> Any:
            return super().forward(*given, **named).detach().requires_grad_()

    sink = RecordingSink()
    model = Hidden(causal=False)
    monitor = LoopMonitor(model, sinks=[sink])
    inputs, targets = windows(1)
    model(inputs)
    monitor.step(torch.tensor(3.0), inputs=inputs, targets=targets)
    model(inputs)
    monitor.step(torch.tensor(3.0))
    assert sink.signals[0].future_influence is not None


def test_model_with_chance_or_memory_in_its_evaluation_is_not_judged() -> None:
    class Noisy(Transformer):
        def forward(self, *given: Any, **named: Any) -> Any:
            return super().forward(*given, **named) + 1e-3 * torch.rand(1)

    class Coupled(Transformer):
        def forward(self, ids: Tensor, *given: Any, **named: Any) -> Any:
            logits = super().forward(ids, *given, **named)
            return logits + logits[-1:, -1:].mean()

    for kind in (Noisy, Coupled):
        assert watched(kind(causal=False), plain, steps=1).signals[0].future_influence is None


@pytest.mark.parametrize(("all_padded", "expected"), [(False, 0.0), (True, None)])
def test_padded_places_that_see_everything_are_no_leak(all_padded: bool, expected: float | None) -> None:
    class LeftPadded(Transformer):
        def forward(self, ids: Tensor, targets: Any = None, attention_mask: Any = None) -> Any:
            x = self.embed(ids)
            q, k, v = self.mix(x).chunk(3, -1)
            hidden = torch.ones(T, T).tril().bool() & attention_mask[:, None].bool()
            bias = torch.zeros(len(ids), T, T).masked_fill(~hidden, torch.finfo(torch.float32).min)
            return self.head(x + F.scaled_dot_product_attention(q, k, v, attn_mask=bias))

    def loss_of(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        mask = torch.ones_like(inputs)
        mask[0, :4] = 0
        mask[1, :] = mask[0] if all_padded else 1
        logits = model(inputs, attention_mask=mask)
        return F.cross_entropy(logits.flatten(0, 1), targets.masked_fill(mask == 0, -100).flatten())

    found = watched(LeftPadded(causal=True), loss_of, steps=1).signals[0].future_influence
    assert found == expected


@pytest.mark.parametrize("causal", [True, False])
def test_vocabulary_as_long_as_the_sequence_hides_nothing(causal: bool) -> None:
    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Embedding(V, 16), nn.Conv1d(16, V, 3)

        def forward(self, ids: Tensor) -> Tensor:
            left = 2 if causal else 1
            mixed: Tensor = self.mix(F.pad(self.embed(ids).movedim(-1, 1), (left, 2 - left)))
            return mixed.movedim(1, -1)

    def loss_of(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        both = torch.randint(0, V, (4, V + 1), generator=torch.Generator().manual_seed(int(inputs[0, 0])))
        return plain(model, both[:, :-1], both[:, 1:])

    found = watched(Convolution(), loss_of, steps=1).signals[0].future_influence
    assert found is not None
    assert (found == 0.0) is causal


def test_looking_changes_no_bit_of_the_training() -> None:
    class Remembers(Transformer):
        def __init__(self) -> None:
            super().__init__(causal=False)
            self.batch_norm, self.calls = nn.BatchNorm1d(V), 0

        def forward(self, *given: Any, **named: Any) -> Any:
            self.calls += 1
            return self.batch_norm(super().forward(*given, **named).movedim(-1, 1)).movedim(1, -1)

    ends = []
    for wanted in (True, False):
        torch.manual_seed(1)
        model, sink = Remembers(), RecordingSink()
        model.dropout.eval()  # a part that somebody has put in evaluation mode by himself
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        monitor = LoopMonitor(
            model,
            optimizer,
            sinks=[sink],
            config=MonitorConfig(check_causality=wanted, look_every_steps=None),
        )
        for step in range(6):
            loss: Any = plain(model, *windows(step))
            loss.backward()
            monitor.step(loss)
            optimizer.step()
            optimizer.zero_grad()
        assert [module.training for module in model.modules()].count(False) == 1
        assert (sink.signals[0].future_influence is not None) is wanted
        monitor.close()
        ends.append([torch.rand(2), torch.tensor(model.calls), *model.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@pytest.mark.parametrize(
    "kind", ["GPT2LMHeadModel", "LlamaForCausalLM", "BertForMaskedLM", "T5ForConditionalGeneration"]
)
def test_hugging_face_models_are_right_where_their_masks_are(kind: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    small = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if kind == "GPT2LMHeadModel":
        config = transformers.GPT2Config(n_positions=16, n_embd=16, n_layer=2, n_head=2, **small)
    elif kind == "T5ForConditionalGeneration":
        config = transformers.T5Config(
            d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, **small
        )
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = (transformers.LlamaConfig if "Llama" in kind else transformers.BertConfig)(**sizes, **small)
    model = getattr(transformers, kind)(config)

    def loss_of(model: Any, inputs: Tensor, targets: Tensor) -> Any:
        return model(input_ids=inputs, labels=inputs).loss

    causal = kind in ("GPT2LMHeadModel", "LlamaForCausalLM")
    sink = watched(model, loss_of, steps=1)
    assert sink.signals[0].future_influence == (0.0 if causal else None)


def test_influence_is_exact_on_a_model_to_check_by_head() -> None:
    def logits_of(ids: Tensor) -> Tensor:
        seen = ids.float()
        return torch.stack([seen + 0.25 * F.pad(seen[:, 1:], (0, 1)), seen], -1)

    found = influence_of_the_last(logits_of, torch.tensor([1, 2, 3]), torch.tensor([3, 3, 7]))
    # At place 1 one of two logits moves by a quarter of 4, at place 2 both by 4.
    assert float(found) == pytest.approx(0.5**0.5 / 4)
    asked = influence_of_the_last(
        logits_of, torch.tensor([1, 2, 3]), torch.tensor([3, 3, 7]), torch.tensor([True, False, True])
    )
    assert float(asked) == 0.0
    alike = influence_of_the_last(logits_of, torch.tensor([1, 3, 3]), torch.tensor([3, 3, 3]))
    assert alike.isnan()


def test_targets_are_read_off_the_gradient_of_the_logits() -> None:
    logits, targets = torch.randn(2, 5, 9, requires_grad=True), torch.randint(0, 9, (2, 5))
    targets[0, 2] = -100
    loss: Any = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(targets_of(logits.grad), targets)


def test_shifted_targets_are_told_from_copies_and_from_a_few() -> None:
    inputs = torch.arange(10).reshape(1, 10) * 3 % 7
    shifted = inputs.roll(-1, 1)
    assert predicts_the_next(inputs, shifted)
    assert not predicts_the_next(inputs, inputs)
    assert not predicts_the_next(torch.ones_like(inputs), torch.ones_like(inputs))
    assert not predicts_the_next(inputs, shifted.where(torch.arange(10) < 3, -100))


def looks_of(beat: CausalityBeat, *, late: bool, saved_at: Container[int] = ()) -> list[int]:
    """Steps at which a run looks whose loss falls and is once too good to be true; read at once, or one step late."""
    looks: list[int] = []
    under_way: list[tuple[int, float, float | None, list[str]]] = []
    for step in range(1, 201):
        if beat.is_due(step):
            looks.append(step)
        suspected = ["loss_collapse"] if 150 < step < 175 else []
        under_way.append((step, 4.0 * 0.99**step, 0.0 if step in looks else None, suspected))
        while len(under_way) > (late and step not in saved_at):
            beat.note(*under_way.pop(0))
        if step in saved_at:
            state, beat = json.loads(json.dumps(beat.state_dict())), CausalityBeat(0.7)
            beat.load_state_dict(state)
    return looks


def test_beat_is_due_at_first_then_with_a_falling_loss_and_on_suspicion() -> None:
    looks = looks_of(CausalityBeat(0.7), late=False)
    assert looks[:3] == [1, 39, 77]
    assert [step for step in looks if 150 <= step <= 177] == [153, 165, 177]


def test_beat_gives_up_a_model_that_cannot_be_judged() -> None:
    never = CausalityBeat(0.7)
    tried = []
    for step in range(1, 20):
        if never.is_due(step):
            tried.append(step)
        never.note(step, float("nan"), None, [])
    assert tried == [1, 3, 5]


@pytest.mark.parametrize("saved_at", [(), (1, 2, 3), (37, 38, 39, 40), tuple(range(150, 180))])
def test_beat_is_the_same_when_read_late_and_when_saved_on_the_way(saved_at: tuple[int, ...]) -> None:
    expected = looks_of(CausalityBeat(0.7), late=False)
    assert looks_of(CausalityBeat(0.7), late=True, saved_at=saved_at) == expected


def test_rule_speaks_at_once_ends_with_a_clean_look_and_resumes_exactly() -> None:
    rule = FutureLeak(FutureLeakConfig())

    def seen(step: int, value: float | None) -> list[tuple[str, bool]]:
        found = rule.observe(StepSignals(step=step, loss=2.0, grad_norm=1.0, future_influence=value))
        return [(finding.status, finding.interrupts) for finding in found]

    assert seen(1, 0.0) == seen(2, None) == seen(3, float("nan")) == seen(4, 1e-5) == []
    assert seen(5, 0.02) == [("suspected", False), ("sustained", True)]
    again = FutureLeak(FutureLeakConfig())
    again.load_state_dict(rule.state_dict())
    rule = again
    assert seen(6, None) == seen(7, 0.5) == []
    assert seen(8, 0.0) == [("resolved", False)]


@pytest.mark.parametrize(("language", "word"), [("en", "the model sees the tokens"), ("zh", "模型看到了")])
def test_leak_is_told_in_both_languages(language: Any, word: str) -> None:
    monitor = TrainingMonitor(MonitorConfig(language=language))
    signals = StepSignals(step=1, loss=2.0, grad_norm=1.0, future_influence=0.3)
    text = "\n".join(line for told in monitor.observe(signals).diagnoses for line in told.lines())
    assert word in text
    assert "0.3" in text
