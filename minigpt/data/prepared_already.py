"""What the cache knows of a corpus, without reading a text or preparing anything."""

from pathlib import Path

from minigpt.data.cache import entry_folder, remembered_fingerprint
from minigpt.data.config import DataConfig
from minigpt.data.corpus import open_corpus
from minigpt.data.manifest import Manifest, read_manifest
from minigpt.data.tokenizer import Tokenizer, bytes_tokenizer


def prepared_already(config: DataConfig) -> Manifest | None:
    """The manifest of the corpus in the cache; None where it is not prepared under these settings.

    Raises:
        DataError: the corpus or the tokenizer is not there, or what the cache has is damaged.
    """
    tokenizer_id = None
    if config.tokenizer.kind == "bytes":
        tokenizer_id = bytes_tokenizer().id
    elif config.tokenizer.path is not None:
        tokenizer_id = Tokenizer.load(Path(config.tokenizer.path)).id
    cache = config.cache_folder()
    fingerprint = remembered_fingerprint(open_corpus(config).state(), cache)
    if fingerprint is None:
        return None
    folder = entry_folder(config, fingerprint, tokenizer_id, cache)
    return read_manifest(folder) if folder.exists() else None
