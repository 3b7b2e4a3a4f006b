"""Where prepared corpora live, and under which key: same content and settings, same entry."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.atomic import write_text_atomically
from minigpt.data.blocks import read_whole
from minigpt.data.config import DataConfig
from minigpt.data.corpus import Corpus
from minigpt.data.manifest import FORMAT
from minigpt.data.progress import Watch
from minigpt.errors import DataError


def cached_fingerprint(corpus: Corpus, state: str, cache: Path, watch: Watch) -> str:
    """The corpus's fingerprint, read from the cache where no file changed since it was last computed."""
    known = remembered_fingerprint(state, cache)
    if known is not None:
        return known
    with watch.over("reading the corpus", corpus.size_bytes()) as tick:
        fingerprint = corpus.fingerprint(tick)
    with writing_to(cache):
        write_text_atomically(_memory_of(state, cache), f"{fingerprint} {_vouching(state, fingerprint)}")
    return fingerprint


def remembered_fingerprint(state: str, cache: Path) -> str | None:
    """The fingerprint of a corpus in this state, if it was computed before; nothing is read but the cache."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        fingerprint, _, digest = read_whole(_memory_of(state, cache)).decode("ascii").partition(" ")
        if digest == _vouching(state, fingerprint):
            return fingerprint
    return None


def _memory_of(state: str, cache: Path) -> Path:
    return cache / "fingerprints" / state


def _vouching(state: str, fingerprint: str) -> str:
    return hashlib.sha256(f"{state} {fingerprint}".encode()).hexdigest()


def entry_folder(config: DataConfig, fingerprint: str, tokenizer_id: str | None, cache: Path) -> Path:
    """The folder of this content under these settings; `tokenizer_id` for a tokenizer that is given."""
    settings = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "text_field": config.text_field,
        "max_documents": config.max_documents,
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
        "tokenizer": tokenizer_id or [config.tokenizer.kind, config.tokenizer.vocab_size],
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return cache / "prepared" / key[:32]


@contextmanager
def writing_to(cache: Path) -> Iterator[None]:
    """Turns what goes wrong with the disk inside into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            found = f"no space left on the disk of the cache folder {cache}; nothing half-made was kept"
        else:
            found = f"the cache folder {cache} cannot be written: {error.strerror or error}"
        raise DataError(f"{found}; set data.cache_dir or $MINIGPT_CACHE to another disk or folder") from error
