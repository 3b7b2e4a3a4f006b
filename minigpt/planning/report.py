"""A forecast as a report for people."""

from collections.abc import Iterator

from minigpt.planning.eta import duration_text
from minigpt.planning.forecast import Forecast
from minigpt.planning.memory import MemoryReport
from minigpt.planning.micro_batch import CPU_MICRO_BATCH_LIMIT, USABLE_FRACTION
from minigpt.planning.plan import (
    CHINCHILLA_TOKENS_PER_PARAMETER,
    bytes_text,
    count_text,
    ratio_text,
    times_text,
)


def report_lines(forecast: Forecast) -> list[str]:
    """The whole report, ready to print."""
    work = forecast.work
    how = "auto" if forecast.micro_batch_is_auto else "as set"
    times = forecast.length.tokens_per_step // work.tokens
    accumulated = f", accumulated {times} times" if times > 1 else ""
    precision = "fp32" if work.precision == "off" else work.precision
    return [
        f"Plan of {forecast.name} on {forecast.device}",
        "",
        *_run_lines(forecast),
        "",
        f"Memory of a training step of {forecast.name} on {forecast.device}: "
        f"{count_text(forecast.parameters)} parameters, {precision}, {work.optimizer}",
        f"  micro_batch_size {work.micro_batch_size} ({how}) x {work.model.context_length} tokens{accumulated}",
        "",
        *memory_table(forecast.memory),
        "",
        verdict(forecast.memory, forecast.available_bytes),
        *_largest_lines(forecast),
        "",
        *lever_lines(forecast),
        "",
        *share_lines(forecast),
    ]


def _run_lines(forecast: Forecast) -> Iterator[str]:
    model, length = forecast.work.model, forecast.length
    yield (
        f"Model   {count_text(forecast.parameters)} parameters: {model.num_layers} layers x "
        f"{model.hidden_size}, {model.num_heads} heads, context {model.context_length}, vocabulary "
        f"{forecast.work.vocab_size:,}"
    )
    yield (
        f"Length  {length.max_steps:,} steps x {length.tokens_per_step:,} tokens = {count_text(length.tokens)} "
        f"tokens, {ratio_text(forecast.tokens_per_parameter)} a parameter (Chinchilla's optimum: "
        f"{CHINCHILLA_TOKENS_PER_PARAMETER})"
    )
    yield f"Corpus  {_corpus_text(forecast)}"
    yield f"Time    {_time_text(forecast)}"
    yield f"Disk    {_disk_text(forecast)}"


def _corpus_text(forecast: Forecast) -> str:
    if forecast.corpus_trouble is not None:
        return forecast.corpus_trouble
    if forecast.epochs is None or forecast.corpus_tokens is None:
        return f"{forecast.corpus}: not prepared yet, its tokens are counted by `minigpt prepare`"
    tokens = count_text(forecast.corpus_tokens)
    return f"{forecast.corpus}: {tokens} tokens, read {times_text(forecast.epochs)}"


def _time_text(forecast: Forecast) -> str:
    seconds = forecast.seconds
    if seconds is None:
        return f"not tried out here ({forecast.flops:.2g} floating-point operations)"
    return (
        f"{duration_text(seconds[0])} to {duration_text(seconds[1])}: from one and two eager blocks timed just now; "
        "compiled code is at the lower end, a busy machine at the upper"
    )


def _disk_text(forecast: Forecast) -> str:
    disk = forecast.disk
    free = "" if disk.free_bytes is None else f" of {bytes_text(disk.free_bytes)} free"
    text = f"{disk.checkpoints} checkpoints x {bytes_text(disk.checkpoint_bytes)} = {bytes_text(disk.needed_bytes)}"
    text += f"{free} in {disk.folder}"
    if disk.free_bytes is not None and disk.needed_bytes > disk.free_bytes:
        text += ": TOO LITTLE; free space, use --run-dir or lower checkpoint.keep_last"
    return text


def memory_table(report: MemoryReport) -> list[str]:
    """The parts of the peak, aligned, each with its share."""
    rows = [(name, bytes_text(size), f"{size / report.peak:.0%}") for name, size in report.parts()]
    rows.append(("peak", bytes_text(report.peak), "100%"))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:{width}}  {size:>9}  {share:>5}" for name, size, share in rows]
    lines.insert(-1, f"  {'-' * (width + 18)}")
    return [*lines, f"  {'a checkpoint on disk':{width}}  {bytes_text(report.checkpoint_file):>9}"]


def verdict(report: MemoryReport, available_bytes: int | None) -> str:
    """Whether it fits, in words."""
    if available_bytes is None:
        return "This system does not tell how much memory is available."
    share = report.peak / available_bytes
    amount = f"{bytes_text(available_bytes)} available here"
    if share > 1:
        return f"{amount}: does not fit, {bytes_text(report.peak - available_bytes)} too much."
    return f"{amount}: fits, with {share:.0%} of it in use" + (" - close." if share > 0.9 else ".")


def _largest_lines(forecast: Forecast) -> Iterator[str]:
    most = forecast.most_sequences
    if forecast.available_bytes is None:
        return
    if most is None:
        yield f"Not even a micro-batch of one sequence fits {USABLE_FRACTION:.0%} of that."
        return
    line = f"The largest micro-batch that fits {USABLE_FRACTION:.0%} of that: {most:,} sequences"
    if forecast.work.device_type == "cpu" and most > CPU_MICRO_BATCH_LIMIT:
        line += f" (auto takes {CPU_MICRO_BATCH_LIMIT} at most: a CPU gains nothing from more)"
    yield line + "."


def lever_lines(forecast: Forecast) -> list[str]:
    """What makes the step smaller, a change a line."""
    if not forecast.levers:
        return ["What makes it smaller: nothing but another model."]
    width = max(len(lever.override) for lever in forecast.levers)
    lines = ["What makes it smaller (--set ...), each alone, and what it costs:"]
    for lever in forecast.levers:
        share = lever.saved_bytes / forecast.memory.peak
        saved = f"saves {bytes_text(lever.saved_bytes):>9} ({share:3.0%})"
        lines.append(f"  {lever.override:{width}}  {saved}; {lever.price}")
    return lines


def share_lines(forecast: Forecast) -> list[str]:
    """What one of several devices would hold."""
    if not forecast.shares:
        return []
    lines = [
        "On several devices, a process each with this micro-batch (memory of one; sent by one in a step):",
        f"  {'devices':>7}  {'ddp':>20}  {'zero-1':>20}  {'fsdp':>20}",
    ]
    for number in dict.fromkeys(share.devices for share in forecast.shares):
        cells = [
            f"{bytes_text(share.peak_bytes)}; {bytes_text(share.sent_bytes)}"
            for share in forecast.shares
            if share.devices == number
        ]
        lines.append(f"  {number:7}  {'  '.join(f'{cell:>20}' for cell in cells)}")
    return [*lines, "  (MiniGPT trains with ddp; zero-1 and fsdp are arithmetic, not built yet)"]
