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

impl From<OperandFormat> for KvFormat {
    fn from(format: OperandFormat) -> Self {
        match format {
            OperandFormat::Bf16 => Self::Bf16,
            OperandFormat::F32 => Self::F32,
        }
    }
}

impl std::str::FromStr for OperandFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f32" | "float32" => Ok(Self::F32),
            _ => Err(format!("unknown dtype {s:?}: expected bf16 or f32")),
        }
    }
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

    /// The formats under the settings `dtype`, of operands and of the KV cache, and `weights`. Without
    /// the latter, bf16 leaves weights as in the file, and f32 is the format of all three: the reference.
    ///
    /// # Errors
    ///
    /// [`BackendError::FormatPair`]: weights and operands are floats of two formats.
    pub fn new(dtype: OperandFormat, weights: Option<WeightFormat>) -> Result<Self> {
        let all_floats = match dtype {
            OperandFormat::Bf16 => Self::BF16,
            OperandFormat::F32 => Self::F32,
        };
        let weights = weights.unwrap_or(match dtype {
            OperandFormat::Bf16 => WeightFormat::Native,
            OperandFormat::F32 => WeightFormat::F32,
        });
        let is_float = matches!(weights, WeightFormat::Bf16 | WeightFormat::F32);
        if is_float && weights != all_floats.weights {
            let (weights, dtype) = (weights.to_string(), dtype.to_string());
            return Err(BackendError::FormatPair { weights, dtype });
        }
        Ok(Self { weights, ..all_floats })
    }

    /// Whether weights are quantised in memory, in a model whose file `has_blocks`.
    pub fn is_quantised(self, has_blocks: bool) -> bool {
        match self.weights {
            WeightFormat::Native => has_blocks,
            WeightFormat::Q8 | WeightFormat::Q4 => true,
            WeightFormat::Bf16 | WeightFormat::F32 => false,
        }
    }

    /// The formats in effect if no weights keep their blocks, because the device has no kernels for
    /// them or the file has none: native weights become operands' format.
    pub fn expanded(self) -> Self {
        let weights = match (self.weights, self.operands) {
            (WeightFormat::Native, OperandFormat::Bf16) => WeightFormat::Bf16,
            (WeightFormat::Native, OperandFormat::F32) => WeightFormat::F32,
            (weights, _) => weights,
        };
        Self { weights, ..self }
    }

    /// The setting that keeps GPUs from computing in these formats, `dtype` or `weights`, and its
    /// value. None if GPUs compute in them.
    pub fn setting_without_gpus(self) -> Option<(&'static str, String)> {
        match self {
            Self::NATIVE | Self::BF16 => None,
            Self { weights, operands: OperandFormat::Bf16, kv: KvFormat::Bf16 } => {
                Some(("weights", weights.to_string()))
            }
            Self { .. } => Some(("dtype", OperandFormat::F32.to_string())),
        }
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
    /// The format of weights; `-f32` follows if operands and KV cache are f32 and weights are codes:
    /// `bf16`, `f32`, `native`, `q8-f32`. Fingerprints have these names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, operands, kv } = *self;
        let is_pair = Self::new(operands, Some(weights)).is_ok_and(|formats| formats == *self);
        let is_float = matches!(weights, WeightFormat::Bf16 | WeightFormat::F32);
        match (is_pair, operands) {
            (false, _) => {
                write!(f, "weights in {weights}, operands in {operands}, KV in {kv}")
            }
            (true, OperandFormat::F32) if !is_float => write!(f, "{weights}-{operands}"),
            (true, _) => write!(f, "{weights}"),
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

    fn of(dtype: &str, weights: &str) -> Result<Formats, String> {
        let weights = match weights {
            "" => None,
            name => Some(name.parse()?),
        };
        Formats::new(dtype.parse()?, weights).map_err(|error| error.to_string())
    }

    #[test]
    fn two_settings_make_three_formats() {
        assert_eq!(of("bf16", ""), Ok(Formats::NATIVE));
        assert_eq!(of("bfloat16", "native"), Ok(Formats::NATIVE));
        assert_eq!(of("bf16", "bf16"), Ok(Formats::BF16));
        for dtype in ["f32", "float32"] {
            assert_eq!(of(dtype, ""), Ok(Formats::F32), "the reference");
            assert_eq!(of(dtype, "f32"), Ok(Formats::F32));
        }
        for (name, weights) in
            [("native", WeightFormat::Native), ("q8", WeightFormat::Q8), ("q4", WeightFormat::Q4)]
        {
            assert_eq!(of("bf16", name), Ok(Formats { weights, ..Formats::BF16 }));
            assert_eq!(of("f32", name), Ok(Formats { weights, ..Formats::F32 }));
        }
    }

    #[test]
    fn floats_of_two_formats_are_refused_with_the_pairs_that_work() {
        let error = of("f32", "bf16").expect_err("two formats");
        assert_eq!(
            error,
            "weights bf16 do not go with dtype f32: dtype f32 takes weights native, q8, q4 or f32, and \
             weights bf16 take dtype bf16"
        );
        assert!(of("bf16", "f32").expect_err("two formats").contains("weights f32 take dtype f32"));
        assert!(of("int3", "").expect_err("no format").contains("bf16 or f32"));
        assert!(of("bf16", "q5").expect_err("no format").contains("native, q8, q4, bf16 or f32"));
    }

    #[test]
    fn names_tell_formats_apart_and_keep_those_of_floats() {
        let name = |dtype, weights| of(dtype, weights).expect("a pair").to_string();
        assert_eq!((name("bf16", "bf16"), name("f32", "")), ("bf16".into(), "f32".into()));
        assert_eq!((name("bf16", ""), name("bf16", "q8")), ("native".into(), "q8".into()));
        assert_eq!(
            (name("f32", "native"), name("f32", "q4")),
            ("native-f32".into(), "q4-f32".into())
        );
    }

    #[test]
    fn expanded_weights_have_the_operands_format() {
        let expanded = |dtype, weights| of(dtype, weights).expect("a pair").expanded();
        assert_eq!(expanded("bf16", ""), Formats::BF16);
        assert_eq!(expanded("f32", "native"), Formats::F32);
        assert_eq!(expanded("bf16", "q8"), of("bf16", "q8").expect("a pair"), "no file has these");
    }

    #[test]
    fn the_setting_that_gpus_lack_is_named() {
        let lacking = |dtype, weights| of(dtype, weights).expect("a pair").setting_without_gpus();
        assert_eq!((lacking("bf16", ""), lacking("bf16", "bf16")), (None, None));
        assert_eq!(lacking("bf16", "q4"), Some(("weights", "q4".into())));
        for weights in ["", "native", "q8"] {
            assert_eq!(lacking("f32", weights), Some(("dtype", "f32".into())), "{weights:?}");
        }
    }
}
