"""The order of the windows: a permutation a epoch that is computed, never stored."""

import hashlib
from typing import overload

import numpy as np
import numpy.typing as npt

_ROUNDS = 6

UInt64Array = npt.NDArray[np.uint64]


@overload
def permuted(index: int, size: int, seed: int, epoch: int) -> int: ...
@overload
def permuted(index: npt.NDArray[np.int64], size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]: ...
def permuted(
    index: int | npt.NDArray[np.int64], size: int, seed: int, epoch: int
) -> int | npt.NDArray[np.int64]:
    """Where `index` in [0, size) goes in the permutation of (seed, epoch): O(1) in time and memory.

    A Feistel network permutes the next larger power of four; whoever lands outside [0, size) walks on until
    inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains")."""
    places = np.atleast_1d(np.asarray(index, dtype=np.int64)).astype(np.uint64)
    assert size >= 1
    assert places.size == 0 or (int(places.min()) >= 0 and int(places.max()) < size), (
        "an index outside the order"
    )
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    places = _feistel(places, half_bits, keys)
    while len(outside := np.flatnonzero(places >= np.uint64(size))):
        places[outside] = _feistel(places[outside], half_bits, keys)
    result = places.astype(np.int64)
    return int(result[0]) if isinstance(index, int) else result


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return [np.uint64(key) for key in np.frombuffer(digest, dtype="<u8")]


def _feistel(places: UInt64Array, half_bits: int, keys: list[np.uint64]) -> UInt64Array:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = places >> shift, places & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << shift) | right


def _mixed(values: UInt64Array) -> UInt64Array:
    """splitmix64's finalizer (Steele, Lea, Flood 2014); its products wrap on purpose."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
