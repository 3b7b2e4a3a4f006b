"""What was seen, in words: a finding's evidence as people read it."""

import re

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.words.tables import Words

UNUSUAL = 1.5
NORMAL_MAY_MISLEAD = frozenset(("update_ratio_high", "initial_loss"))
"""Told for an absolute reason, where the run's normal is none, or as bad."""
NO_NORM = -1.0
"""The gradient norm of a record that has none."""
EXTRAS = (
    "normal",
    "parameter",
    "declining_since",
    "loss_improvement",
    "group",
    "module",
    "module_input_max",
    "micro_batch",
    "row",
    "rerun",
    "document",
    "bundle",
    "new_normal",
)
PERCENTAGES = {
    "loss_improvement": None,
    "label_copy": None,
    "value": ("frozen_parameter", "gradient_underflow", "dead_units", "label_mismatch", "weight_collapse"),
    "normal": ("gradient_underflow", "dead_units", "label_mismatch"),
}
"""Evidence shown as a percentage, for these findings (None: for all)."""


def _evidence(finding: Finding, words: Words) -> dict[str, str]:
    """The evidence as people read it, without what would mislead them."""
    evidence = finding.evidence
    read = {key: shown(key, value, finding.name) for key, value in evidence.items()}
    if evidence.get("grad_norm") == NO_NORM:
        del read["grad_norm"]
    if "phase" in read:
        read["phase"] = words.get(f"phase.{read['phase']}", read["phase"])
    if "rerun" in read:
        read["rerun"] = words.get(f"rerun.{read['rerun']}", read["rerun"])
    # What says it more exactly leaves the rest unsaid.
    if "module" in read or "parameters" in read:
        read.pop("parameter", None)
    if not evidence.get("epoch") and not evidence.get("position"):
        read.pop("epoch", None)  # a loop that keeps no count of its data
    ratio = evidence.get("ratio", UNUSUAL)
    if finding.name in NORMAL_MAY_MISLEAD and isinstance(ratio, float) and ratio < UNUSUAL:
        read.pop("normal", None)
    if finding.name == "degenerate_batch" and evidence.get("trigger") == "targets":
        read |= {key: f"{100 * float(evidence[key]):.3g}%" for key in ("value", "normal") if key in evidence}
    if evidence.get("sequences_hit", 0) == evidence.get("sequences", 1):
        read.pop("document", None)  # every text of the batch is hit: none is special
    return read


def seen_in_words(finding: Finding, words: Words) -> str:
    evidence = _evidence(finding, words)
    phrases = _phrases(finding, words)
    parts = [part.format(**evidence) for part in phrases.split("|") if fields(part) <= evidence.keys()]
    said = fields(phrases)
    exact = {"module", "parameter", "parameters"} & evidence.keys()
    for key in EXTRAS:
        if key == "group" and exact:
            continue
        phrase = words.get(f"{finding.name}.{key}") or words.get(f"also.{key}")
        if key in evidence and key not in said and phrase:
            parts += [phrase.format(**evidence)] if fields(phrase) <= evidence.keys() else []
    if "update_skipped" in finding.evidence:
        parts.append(words["update.refused" if finding.evidence["update_skipped"] else "update.applied"])
    return words["separator"].join(parts)


def _phrases(finding: Finding, words: Words) -> str:
    """What a finding says of itself; some say it differently for each thing that may have triggered them."""
    own = words[f"{finding.name}.seen"]
    trigger = "weights" if "weight_rms" in finding.evidence else finding.evidence.get("trigger")
    return words.get(f"{finding.name}.seen.{trigger}", own)


def fields(phrase: str) -> set[str]:
    """Names of the numbers that a phrase is filled with."""
    return set(re.findall(r"{(\w+)}", phrase))


def shown(key: str, value: float | int | str | bool, name: str) -> str:
    """Evidence for people: three digits, percentages where the number is a share."""
    if isinstance(value, float) and key in PERCENTAGES:
        only = PERCENTAGES[key]
        if only is None or name in only:
            return f"{100 * value:.3g}%"
    if key == "loss" and isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
