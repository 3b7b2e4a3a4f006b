"""What the torture found, for people: fault, tries, what was lost."""

import errno
from collections import defaultdict
from collections.abc import Sequence

from minigpt.lab.torture_disk.sweep import Verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """A row for each scene and error: tries, how the run ended, how often anything was lost."""
    rows: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.case.scene, errno.errorcode[verdict.case.error]].append(verdict)
    lines = ["| while | error | tries | finished | refused in one line | lost |", "|---|---|---|---|---|---|"]
    for (scene, error), of in rows.items():
        finished, refused = (sum(each.ended == how for each in of) for how in ("finished", "refused"))
        lost = sum(bool(each.lost) for each in of)
        lines.append(f"| {scene} | {error} | {len(of)} | {finished} | {refused} | {lost or 'nothing'} |")
    lost = sum(bool(each.lost) for each in verdicts)
    lines.append(f"| all | all | {len(verdicts)} | | | {lost or 'nothing'} |")
    return "\n".join(lines)


def losses(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each try in which anything was lost."""
    return [
        f"{each.case.scene}, {each.case.policy}, {each.case.name} ({each.call}): {each.ended}; {'; '.join(each.lost)}"
        for each in verdicts
        if each.lost
    ]
