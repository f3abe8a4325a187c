//! Number formats of weights, operands and the KV cache. Arithmetic accumulates in f32 in all of them.

use crate::{BackendError, Result};
use std::fmt;

/// Defines a format: its documentation, its name, and its values.
macro_rules! number_format {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            /// bfloat16: 8 bits of mantissa, the range of f32.
            Bf16,
            /// IEEE 754 single precision: the reference.
            F32,
        }

        impl $name {
            /// Size of one value in bytes.
            pub fn bytes(self) -> usize {
                match self {
                    Self::Bf16 => 2,
                    Self::F32 => 4,
                }
            }

            /// Values per 32-bit word, the unit in which CPU kernels step over k.
            pub(crate) fn per_word(self) -> usize {
                4 / self.bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::Bf16 => "bf16",
                    Self::F32 => "f32",
                })
            }
        }
    };
}

number_format! {
    /// The format of operand rows: inputs of matrix products, queries and outputs of attention.
    OperandFormat
}
number_format! {
    /// The format of keys and values in the KV pool.
    KvFormat
}

/// The format of packed weight matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// As in the file: quantised weights keep their blocks, and floats become operands' format. A GPU
    /// expands blocks.
    Native,
    /// Every weight as bfloat16.
    Bf16,
    /// Every weight as f32.
    F32,
    /// Every weight quantised while loading: 8-bit codes, an f16 scale for 32 weights.
    Q8,
    /// Every weight quantised while loading: 4-bit codes, an f16 scale for 32 weights. Embeddings and
    /// output heads have 8-bit codes.
    Q4,
}

impl WeightFormat {
    /// All formats, under the names that settings have.
    const NAMES: [(&str, Self); 5] = [
        ("native", Self::Native),
        ("bf16", Self::Bf16),
        ("f32", Self::F32),
        ("q8", Self::Q8),
        ("q4", Self::Q4),
    ];
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(_, format)| format == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == s);
        named.map(|(_, format)| *format).ok_or_else(|| {
            format!("unknown format of weights {s:?}: expected native, q8, q4, bf16 or f32")
        })
    }
}

/// The three formats of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Formats {
    /// The format of weight matrices.
    pub weights: WeightFormat,
    /// The format of operand rows.
    pub operands: OperandFormat,
    /// The format of the KV cache.
    pub kv: KvFormat,
}

impl Formats {
    /// Weights as in the file, and bf16 for the rest.
    pub const NATIVE: Self = Self { weights: WeightFormat::Native, ..Self::BF16 };
    /// bf16 for all.
    pub const BF16: Self =
        Self { weights: WeightFormat::Bf16, operands: OperandFormat::Bf16, kv: KvFormat::Bf16 };
    /// f32 for all.
    pub const F32: Self =
        Self { weights: WeightFormat::F32, operands: OperandFormat::F32, kv: KvFormat::F32 };

    /// Whether GPUs compute in these formats.
    pub fn suit_gpus(self) -> bool {
        matches!(self, Self::NATIVE | Self::BF16)
    }

    /// Fails unless the formats are one of the combinations that a device has kernels for. The error
    /// names the first format that no combination has beside the formats before it.
    pub(crate) fn expect_one_of(self, supported: &[Formats]) -> Result<()> {
        let fails = |setting, value: &dyn fmt::Display, supported: Vec<String>| {
            let (value, supported) = (value.to_string(), supported.join(" or "));
            Err(BackendError::Format { setting, value, supported })
        };
        let mut left = supported.to_vec();
        let weights = left.iter().map(|formats| formats.weights.to_string()).collect();
        left.retain(|formats| formats.weights == self.weights);
        if left.is_empty() {
            return fails("weights", &self.weights, weights);
        }
        let operands = left.iter().map(|formats| formats.operands.to_string()).collect();
        left.retain(|formats| formats.operands == self.operands);
        if left.is_empty() {
            return fails("operands", &self.operands, operands);
        }
        let kv = left.iter().map(|formats| formats.kv.to_string()).collect();
        left.retain(|formats| formats.kv == self.kv);
        if left.is_empty() { fails("kv", &self.kv, kv) } else { Ok(()) }
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self::NATIVE
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BF16 => f.write_str("bf16"),
            Self::F32 => f.write_str("f32"),
            Self { weights, operands: OperandFormat::Bf16, kv: KvFormat::Bf16 } => {
                write!(f, "{weights} weights, bf16")
            }
            Self { weights, operands, kv } => {
                write!(f, "weights in {weights}, operands in {operands}, KV in {kv}")
            }
        }
    }
}

impl std::str::FromStr for Formats {
    type Err = String;

    /// Reads the format of operands and of the KV cache. `bf16` leaves weights as in the file; `f32`, the
    /// reference, is the format of all three.
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "bf16" | "bfloat16" => Ok(Formats::NATIVE),
            "f32" | "float32" => Ok(Formats::F32),
            _ => Err(format!("unknown dtype {s:?}: expected bf16 or f32")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_combination_names_the_format_and_the_supported_ones() {
        let error = |formats: Formats, supported: &[Formats]| {
            formats.expect_one_of(supported).expect_err("unsupported").to_string()
        };
        let both = [Formats::BF16, Formats::F32];
        for formats in both {
            formats.expect_one_of(&both).expect("supported");
        }
        let kv = Formats { kv: KvFormat::F32, ..Formats::BF16 };
        assert_eq!(error(kv, &both), "no kernel for kv in f32: supported here is bf16");
        let operands = Formats { operands: OperandFormat::Bf16, ..Formats::F32 };
        assert_eq!(error(operands, &both), "no kernel for operands in bf16: supported here is f32");
        let weights = error(Formats::F32, &[Formats::BF16]);
        assert_eq!(weights, "no kernel for weights in f32: supported here is bf16");
        assert_eq!(kv.to_string(), "weights in bf16, operands in bf16, KV in f32");
    }
}
