"""All sentences by language and key."""

from minigpt.training_monitor.words import chinese, chinese_remedies, english, english_remedies

Words = dict[str, str]


def _table(labels: Words, seen: Words, causes: Words, remedies: Words) -> Words:
    return {
        **labels,
        **seen,
        **{f"cause.{name}": text for name, text in causes.items()},
        **{f"remedies.{name}": text for name, text in remedies.items()},
    }


WORDS: dict[str, Words] = {
    "en": _table(english.LABELS, english.SEEN, english.CAUSES, english_remedies.REMEDIES),
    "zh": _table(chinese.LABELS, chinese.SEEN, chinese.CAUSES, chinese_remedies.REMEDIES),
}
