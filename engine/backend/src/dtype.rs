//! Number formats of weights, activations and the KV cache.

/// A storage format. Arithmetic accumulates in f32 for either format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// bfloat16: 8 bits of mantissa, the range of f32.
    Bf16,
    /// IEEE 754 single precision: the reference.
    F32,
}

impl Dtype {
    /// Size of one value in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// Values per 32-bit word, the unit in which kernels step over k.
    pub fn per_word(self) -> usize {
        4 / self.bytes()
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
        })
    }
}

impl std::str::FromStr for Dtype {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "bf16" | "bfloat16" => Ok(Dtype::Bf16),
            "f32" | "float32" => Ok(Dtype::F32),
            _ => Err(format!("unknown dtype {s:?}: expected bf16 or f32")),
        }
    }
}
