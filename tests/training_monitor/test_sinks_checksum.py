"""The checksum of event files against TensorBoard's own."""

import random

import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow  # type: ignore[import-untyped]

from minigpt.training_monitor.sinks.checksum import masked_crc32c


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 8, 767, 2047, 2048, 2049, 2050, 2052, 5000])
def test_checksum_is_tensorboards(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)
