//! Storage formats of numbers in files, and their decoding to `f32`.

use super::quant;
use galley_backend::BlockFormat;
use half::{f16, slice::HalfFloatSliceExt};
use std::fmt;

/// A storage format of tensor elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// Blocks of quantised weights: a fixed number of elements of one row in a fixed number of bytes.
    Blocks(BlockFormat),
}

impl Codec {
    /// All formats, in the order of error messages.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let floats = [Self::F32, Self::F16, Self::BF16];
        floats.into_iter().chain(BlockFormat::ALL.map(Self::Blocks))
    }

    /// Elements in a block; 1 for floats.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Blocks(format) => format.scale_len(),
        }
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Blocks(format) => quant::block_bytes(format),
        }
    }

    /// The format of the blocks; None for floats.
    pub fn block_format(self) -> Option<BlockFormat> {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Blocks(format) => Some(format),
        }
    }

    /// Bytes of a tensor of this shape. `None` if a row is not a whole number of blocks, or if the
    /// size does not fit a `usize`.
    pub(super) fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        let cols = shape.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        let elements = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n))?;
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    ///
    /// If `bytes` and `out` do not hold the same number of whole blocks.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let blocks = out.len() / self.block_len();
        assert_eq!(out.len(), blocks * self.block_len(), "whole blocks of {self}");
        assert_eq!(bytes.len(), blocks * self.block_bytes(), "bytes of {blocks} blocks of {self}");
        match self {
            Self::F32 => quant::each_block(bytes, out, |&raw, [value]| {
                *value = f32::from_le_bytes(raw);
            }),
            Self::BF16 => quant::each_block(bytes, out, |&raw, [value]| {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16);
            }),
            Self::F16 => decode_f16(bytes, out),
            Self::Blocks(format) => quant::decode(format, bytes, out),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::BF16 => f.write_str("BF16"),
            Self::Blocks(format) => fmt::Display::fmt(format, f),
        }
    }
}

/// Decodes through a buffer on the stack. `half` converts aligned slices, eight elements at a time
/// if the CPU can, but a tensor in a file may start at an odd address.
fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    const CHUNK: usize = 256;
    let mut halves = [f16::ZERO; CHUNK];
    for (bytes, values) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let halves = &mut halves[..values.len()];
        for (half, &raw) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(raw);
        }
        halves.convert_to_f32_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galley_backend::RowCodes;
    use safetensors::SafeTensors;
    use std::path::Path;

    /// gguf-py decodes the same blocks of random bits in tests/oracle/make_codecs.py. Values that are
    /// computed from the codes of a row are the same.
    #[test]
    fn decodes_what_gguf_py_decodes_bit_for_bit() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/codecs.safetensors");
        let file = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        for codec in Codec::all().filter(|&codec| codec != Codec::F32) {
            let raw = tensors.tensor(&format!("{codec}.raw")).unwrap();
            let expected = tensors.tensor(&format!("{codec}.values")).unwrap();
            let expected: Vec<u32> =
                expected.data().as_chunks().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect();
            let assert_equal = |values: &[f32]| {
                assert_eq!(values.len(), expected.len(), "{codec}");
                for (i, (value, &expected)) in values.iter().zip(&expected).enumerate() {
                    let other = f32::from_bits(expected);
                    assert_eq!(value.to_bits(), expected, "{codec} {i}: {value} {other}");
                }
            };
            let mut values = vec![f32::NAN; expected.len()];
            codec.decode(raw.data(), &mut values);
            assert_equal(&values);
            if let Some(format) = codec.block_format() {
                let mut codes = RowCodes::new(format, expected.len());
                quant::read_codes(format, raw.data(), &mut codes);
                assert_equal(&quant::tests::values_of(format, &codes));
            }
        }
    }

    #[test]
    fn f32_is_copied_and_floats_need_no_alignment() {
        let mut bytes = vec![0];
        bytes.extend([1.5_f32, -0.0, f32::MIN_POSITIVE / 4.0].iter().flat_map(|v| v.to_le_bytes()));
        let mut out = [0.0; 3];
        Codec::F32.decode(&bytes[1..], &mut out);
        assert_eq!(
            out.map(f32::to_bits),
            [1.5_f32, -0.0, f32::MIN_POSITIVE / 4.0].map(f32::to_bits)
        );

        let values: Vec<f32> = (0_u8..=255).chain(0..=44).map(|n| f32::from(n) / 8.0).collect();
        let mut bytes = vec![0];
        bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        let mut out = vec![0.0; values.len()];
        Codec::F16.decode(&bytes[1..], &mut out);
        assert_eq!(out, values);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        const Q4_K: Codec = Codec::Blocks(BlockFormat::Q4_K);
        assert_eq!(Q4_K.tensor_bytes(&[3, 512]), Some(3 * 2 * 144));
        assert_eq!(Q4_K.tensor_bytes(&[3, 128]), None);
        assert_eq!(Codec::BF16.tensor_bytes(&[]), Some(2));
        assert_eq!(Codec::F32.tensor_bytes(&[0, 7]), Some(0));
        assert_eq!(Codec::F32.tensor_bytes(&[usize::MAX / 2, 1]), None);
        assert_eq!(Codec::F32.tensor_bytes(&[usize::MAX, usize::MAX, 0]), None);
    }
}
