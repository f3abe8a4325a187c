//! Tensor types of GGUF files, by number.

use crate::weights::{codec::Codec, tensor::Storage};
use galley_backend::BlockFormat;

/// The storage of a tensor with `enum ggml_type` number `kind`.
pub(super) fn storage(kind: u32) -> Storage {
    let codec = match kind {
        0 => Codec::F32,
        1 => Codec::F16,
        2 => Codec::Blocks(BlockFormat::Q4_0),
        3 => Codec::Blocks(BlockFormat::Q4_1),
        6 => Codec::Blocks(BlockFormat::Q5_0),
        7 => Codec::Blocks(BlockFormat::Q5_1),
        8 => Codec::Blocks(BlockFormat::Q8_0),
        12 => Codec::Blocks(BlockFormat::Q4_K),
        13 => Codec::Blocks(BlockFormat::Q5_K),
        14 => Codec::Blocks(BlockFormat::Q6_K),
        20 => Codec::Blocks(BlockFormat::IQ4_NL),
        30 => Codec::BF16,
        _ => {
            let name = OTHERS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
            let unknown = || format!("ggml type {kind}, which llama.cpp does not have");
            return Storage::Other(name.map_or_else(unknown, str::to_owned));
        }
    };
    Storage::Codec(codec)
}

/// Types without a codec in Galley. ggml has removed some of them, which old files still have.
const OTHERS: [(u32, &str); 30] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_ggml_has_a_name() {
        for kind in 0..=41 {
            match storage(kind) {
                Storage::Other(name) => assert!(!name.starts_with("ggml type"), "{name}"),
                Storage::Codec(_) => assert!(OTHERS.iter().all(|(number, _)| *number != kind)),
                Storage::Broken(reason) => panic!("{reason}"),
            }
        }
        assert!(matches!(storage(137), Storage::Other(name) if name.contains("137")));
    }
}
