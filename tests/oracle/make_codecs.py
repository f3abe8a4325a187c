#!/usr/bin/env python3
"""Blocks of every GGUF weight format with the values gguf-py reads from them.

Writes one safetensors file with two tensors per format: `<format>.raw` (u8, four blocks or
superblocks; 128 elements for F16 and BF16) and `<format>.values` (f32). The quantised bits are
random, every f16 scale is finite: one block with ordinary scales, one with negative ones, one
with subnormal ones, and one with scale 1 or, in formats that also have a minimum, with scale 0
and minimum scale 1.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

BLOCKS = 4
# Byte offsets of the f16 scales within a block.
SCALES = {
    Type.Q8_0: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
}


def quantised_blocks(kind, rng):
    """Random blocks of `kind` with valid scales."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = rng.uniform(0.001, 0.1, BLOCKS).astype(np.float16)
        scales[1] = -scales[1]
        scales[2] = np.float16(rng.integers(1, 1024) * 2.0**-24)
        scales[3] = 1.0 if offset == SCALES[kind][-1] else 0.0
        raw[:, offset : offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    return raw


def plain_elements(kind, rng):
    """Random 16-bit floats: ordinary ones, every kind of zero and subnormal, the largest."""
    elements = rng.normal(0.0, 1.0, 128).astype(np.float32)
    if kind == Type.F16:
        bits = elements.astype(np.float16).view(np.uint16)
        bits[:8] = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]
    else:
        bits = (elements.view(np.uint32) >> 16).astype(np.uint16)
        bits[:8] = [0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x7F7F, 0xFF7F]
    return bits.view(np.uint8).reshape(1, -1)


def main():
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="safetensors file to write")
    args = parser.parse_args()

    rng = np.random.default_rng(20241107)
    tensors = {}
    for kind in (Type.F16, Type.BF16, *SCALES):
        raw = quantised_blocks(kind, rng) if kind in SCALES else plain_elements(kind, rng)
        typed = raw.view(np.float16) if kind == Type.F16 else raw
        values = gguf.dequantize(typed, kind).astype(np.float32).reshape(-1)
        assert np.isfinite(values).all(), kind
        tensors[f"{kind.name}.raw"] = raw.reshape(-1)
        tensors[f"{kind.name}.values"] = values
    save_file(tensors, args.output)


if __name__ == "__main__":
    main()
