"""What a tokenizer.json of somebody else may ask for: looked at before the library that runs it gets it."""

import json
from pathlib import Path
from typing import Any

from minigpt.errors import DataError

_MOST_BYTES = 256 << 20
MOST_TOKENS = 1 << 20
"""The largest known vocabulary has 900,000."""
_MOST_GROWTH = 64
"""How much longer a normalizer may make a text: it runs on pieces of 256 thousand characters."""


def tokenizer_text(path: Path) -> str:
    """The file's text; DataError where it is no regular file of a size that a tokenizer.json can have."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"tokenizer {path}: not a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"tokenizer {path}: cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"tokenizer {path}: larger than {_MOST_BYTES >> 20} MiB, so it is no tokenizer.json")
    return text


def check_tokenizer(text: str) -> None:
    """Nothing, when neither an id nor a normalizer asks for memory out of proportion.

    Raises:
        DataError: one does.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return  # the library says better what is wrong with it
    if not isinstance(content, dict):
        return
    largest = max(_ids(content), default=0)
    if largest >= MOST_TOKENS:
        raise DataError(
            f"has a token with the id {largest:,}, and MiniGPT's vocabularies end at {MOST_TOKENS:,}; "
            "number its tokens from 0"
        )
    for part in ("normalizer", "decoder"):
        if _growth(content.get(part)) > _MOST_GROWTH:
            raise DataError(
                f"its {part} makes a text more than {_MOST_GROWTH} times as long; use another tokenizer"
            )


def _ids(content: dict[str, Any]) -> list[int]:
    """All ids that the vocabulary and the added tokens name."""
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    found = list(vocab.values()) if isinstance(vocab, dict) else []
    added = content.get("added_tokens")
    if isinstance(added, list):
        found += [each.get("id") for each in added if isinstance(each, dict)]
    return [each for each in found if isinstance(each, int)]


def _growth(part: Any) -> int:
    """How many times as long a text may come out of a normalizer or decoder: of a sequence, the product."""
    if isinstance(part, list):
        growth = 1
        for each in part:
            growth = min(growth * _growth(each), 1 << 20)
        return growth
    if not isinstance(part, dict):
        return 1
    own = 1
    if part.get("type") == "Replace":
        pattern = part.get("pattern")
        known = pattern.get("String") if isinstance(pattern, dict) else None
        content = str(part.get("content", ""))
        # A pattern may match between all characters.
        own = -(-len(content) // len(known)) if isinstance(known, str) and known else 1 + len(content)
    if part.get("type") == "Prepend" and len(str(part.get("prepend", ""))) > _MOST_GROWTH:
        own = 1 + _MOST_GROWTH
    return max(1, own) * _growth([part[name] for name in ("normalizers", "decoders") if name in part])
