"""Bytes in transport: what a standard compressor makes of a file, and that zeros are what it saves."""

from __future__ import annotations

import lzma
import zlib

import numpy as np

from edgeprune.measure.transport import Transport, measure_transport


def test_sizes_are_those_of_streams_that_unpack_to_the_file() -> None:
    data = np.random.default_rng(0).integers(-20, 20, 5000).astype(np.int8).tobytes()
    transport = measure_transport(data)
    assert transport.plain_bytes == 5000
    packed = zlib.compress(data, 9)
    assert (len(packed), zlib.decompress(packed)) == (transport.zlib_bytes, data)
    unpacked = lzma.decompress(lzma.compress(data, preset=6 | lzma.PRESET_EXTREME, check=lzma.CHECK_CRC32))
    assert unpacked == data
    assert transport == measure_transport(data)


def test_zeros_get_smaller_and_the_better_compressor_is_named() -> None:
    dense = np.random.default_rng(0).integers(-127, 128, 20000).astype(np.int8)
    sparse = np.where(np.random.default_rng(1).random(20000) < 0.8, 0, dense)
    before, after = measure_transport(dense.tobytes()), measure_transport(sparse.tobytes())
    assert before.compressed_bytes > 19000  # noise does not compress
    # at least the entropy: 20000 * (H(.2) + .2 * log2 255) / 8 = 5800 bytes
    assert 5700 < after.compressed_bytes < 8000
    assert after.compressed_bytes == min(after.zlib_bytes, after.xz_bytes)
    assert Transport(10, 5, 6).compressor == Transport(10, 5, 5).compressor == "zlib -9"
    assert Transport(10, 6, 5).compressor == "xz -6e"
