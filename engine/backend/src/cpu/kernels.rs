//! Entry points of every kernel, one per instruction set and element.
//!
//! Kernels are generic and always inlined; an entry point enables the instruction set around them.
//! [`Kernels::choose`] chooses a table of entry points when a backend starts.

use super::attention::{self, AttentionScratch, Call, QueryRows, SoftmaxState};
use super::blocks::{self, RowBlock, StripProduct};
use super::gemm::{self, Gemm};
use super::observe::{self, KeptStates, ObserveScratch};
use super::probe_loops;
use super::rope::{self, RopeStore};
use super::rows;
use super::simd::{self, Bf16, Element, F32, Integers, Isa};
use crate::{BackendError, OperandFormat, Result};
use std::ops::Range;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 with bf16 and 8-bit dot products.
    Avx512Bf16,
    /// AVX-512 with 8-bit dot products.
    Avx512Vnni,
    /// AVX-512.
    Avx512,
    /// AVX2 with FMA and 8-bit dot products.
    AvxVnni,
    /// AVX2 with FMA.
    Avx2,
    /// The instruction set that the compiler assumes for the target.
    Portable,
}

impl InstructionSet {
    /// All instruction sets, best first.
    pub const ALL: [Self; 6] = [
        Self::Avx512Bf16,
        Self::Avx512Vnni,
        Self::Avx512,
        Self::AvxVnni,
        Self::Avx2,
        Self::Portable,
    ];

    /// Whether this CPU supports it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = || {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            };
            let avx512_vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
            let avx2 = || {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            };
            match self {
                Self::Avx512Bf16 => avx512_vnni() && is_x86_feature_detected!("avx512bf16"),
                Self::Avx512Vnni => avx512_vnni(),
                Self::Avx512 => avx512(),
                Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
                Self::Avx2 => avx2(),
                Self::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }

    /// The best instruction set of this CPU.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// Its name, as in `GALLEY_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512 => "avx512",
            Self::AvxVnni => "avxvnni",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// The instruction set with the same bits: products of integers are exact on all of them.
    pub fn of_same_bits(self) -> Self {
        match self {
            Self::Avx512Vnni => Self::Avx512,
            Self::AvxVnni => Self::Avx2,
            isa => isa,
        }
    }
}

impl std::str::FromStr for InstructionSet {
    type Err = BackendError;

    /// Accepts names of instruction sets that this CPU supports.
    fn from_str(name: &str) -> Result<Self> {
        let unsupported = |why: &str| {
            let names: Vec<_> =
                Self::ALL.into_iter().filter(|isa| isa.is_available()).map(Self::name).collect();
            Err(BackendError::Unsupported(format!(
                "instruction set {name:?} {why}: this CPU has {}",
                names.join(", ")
            )))
        };
        match Self::ALL.into_iter().find(|isa| isa.name() == name) {
            None => unsupported("is unknown"),
            Some(isa) if !isa.is_available() => unsupported("is not available"),
            Some(isa) => Ok(isa),
        }
    }
}

/// The entry points of one instruction set and element. Each has the safety contract of its kernel.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub(super) multiply_panels: unsafe fn(&Gemm<'_>, Range<usize>),
    pub(super) strips: StripKernels,
    /// For rows of operands.
    operand_rows: RowKernels,
    /// For rows of f32.
    f32_rows: RowKernels,
    /// Rounds f32 values to operands.
    pub(super) to_operand: unsafe fn(&[f32], *mut u32),
    /// Turns words into multipliers; None if multipliers are the words themselves.
    pub(super) expand: Option<unsafe fn(*const u32, usize, *mut u32)>,
    pub(super) rope_and_store: unsafe fn(&RopeStore<'_>, Range<usize>),
    pub(super) attend: unsafe fn(&Call, &QueryRows<'_>, &mut AttentionScratch),
    pub(super) tile_state: unsafe fn(
        &Call,
        &QueryRows<'_>,
        (usize, usize),
        &mut AttentionScratch,
        &mut SoftmaxState<'_>,
    ),
    pub(super) merge_states: unsafe fn(&Call, &QueryRows<'_>, &mut [f32], &mut AttentionScratch),
    pub(super) sum_probabilities: unsafe fn(&Call, &QueryRows<'_>, &mut ObserveScratch),
    pub(super) add_kept: unsafe fn(&KeptStates<'_>, &mut [f32]),
    pub(super) dots: unsafe fn(usize) -> f32,
    pub(super) read: unsafe fn(*const u32, usize) -> f32,
}

impl Kernels {
    /// The kernels of an instruction set for operands of a format. [`Element`] ties the formats of
    /// weights, operands and KV: a kernel has one number format in all its words.
    pub(super) fn choose(isa: InstructionSet, format: OperandFormat) -> Self {
        assert!(isa.is_available(), "{} is not available on this CPU", isa.name());
        let strips = match isa {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 | InstructionSet::Avx512Vnni => avx512_vnni_strips::STRIPS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512_strips::STRIPS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => avx_vnni_strips::STRIPS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2_strips::STRIPS,
            _ => portable_strips::STRIPS,
        };
        let f32_rows = Self::of_floats(isa, OperandFormat::F32).f32_rows;
        Self { strips, f32_rows, ..Self::of_floats(isa, format) }
    }

    /// The kernels for rows whose values have a format.
    pub(super) fn rows(&self, format: OperandFormat) -> RowKernels {
        match format {
            OperandFormat::F32 => self.f32_rows,
            OperandFormat::Bf16 => self.operand_rows,
        }
    }

    /// The kernels of one element.
    fn of_floats(isa: InstructionSet, format: OperandFormat) -> Self {
        match (isa.of_same_bits(), format) {
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512Bf16, OperandFormat::Bf16) => avx512_bf16_pairs::KERNELS,
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512 | InstructionSet::Avx512Bf16, OperandFormat::F32) => {
                avx512_f32::KERNELS
            }
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512, OperandFormat::Bf16) => avx512_bf16::KERNELS,
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, OperandFormat::F32) => avx2_f32::KERNELS,
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, OperandFormat::Bf16) => avx2_bf16::KERNELS,
            (_, OperandFormat::F32) => portable_f32::KERNELS,
            (_, OperandFormat::Bf16) => portable_bf16::KERNELS,
        }
    }
}

/// The kernels of an instruction set for rows of activations in one format.
#[derive(Clone, Copy)]
pub(super) struct RowKernels {
    /// Quantises a row of a number of columns to blocks at a stride.
    pub(super) quantise: unsafe fn(*const u32, usize, *mut RowBlock, usize),
    /// Norms a row of f32.
    pub(super) rms_norm: unsafe fn(&[f32], &[f32], f32, *mut u32),
}

/// The kernels of quantised weights of an instruction set.
#[derive(Clone, Copy)]
pub(super) struct StripKernels {
    /// Most rows of a tile.
    pub(super) rows: usize,
    pub(super) multiply: unsafe fn(&StripProduct),
}

macro_rules! strip_kernels {
    ($module:ident, $integers:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            pub(super) const STRIPS: StripKernels =
                StripKernels { rows: <$integers>::ROWS, multiply };

            $(#[target_feature(enable = $features)])?
            unsafe fn multiply(p: &StripProduct) {
                // SAFETY: the features are enabled here; the caller guarantees the rest.
                unsafe { blocks::multiply_strip::<$integers>(p) }
            }
        }
    };
}

strip_kernels!(portable_strips, simd::PortableIntegers);
#[cfg(target_arch = "x86_64")]
strip_kernels!(avx2_strips, simd::Avx2Integers, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
strip_kernels!(avx_vnni_strips, simd::AvxVnniIntegers, "avx2,fma,f16c,avxvnni");
#[cfg(target_arch = "x86_64")]
strip_kernels!(avx512_strips, simd::Avx512Integers, "avx512f,avx512bw,avx512vl,avx512dq");
#[cfg(target_arch = "x86_64")]
strip_kernels!(
    avx512_vnni_strips,
    simd::Avx512VnniIntegers,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"
);

macro_rules! entry_points {
    ($module:ident, $isa:ty, $element:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            pub(super) const KERNELS: Kernels = Kernels {
                multiply_panels,
                strips: portable_strips::STRIPS,
                operand_rows: ROWS,
                f32_rows: ROWS,
                to_operand,
                expand: if <$isa>::EXPANDS && <$element>::PER_WORD > 1 { Some(expand) } else { None },
                rope_and_store,
                attend,
                tile_state,
                merge_states,
                sum_probabilities,
                add_kept,
                dots,
                read,
            };
            const ROWS: RowKernels = RowKernels { quantise: quantise_row, rms_norm };

            $(#[target_feature(enable = $features)])?
            unsafe fn multiply_panels(g: &Gemm<'_>, panels: Range<usize>) {
                // SAFETY: the features are enabled here; the caller guarantees the rest. The same
                // holds below.
                unsafe { gemm::multiply_panels::<$isa, $element>(g, panels) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quantise_row(
                row: *const u32,
                cols: usize,
                out: *mut RowBlock,
                stride: usize,
            ) {
                // SAFETY: see `multiply_panels`.
                unsafe { blocks::quantise_row::<$element>(row, cols, out, stride) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn to_operand(x: &[f32], out: *mut u32) {
                // SAFETY: see `multiply_panels`.
                unsafe { rows::to_operand::<$isa, $element>(x, out) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn expand(words: *const u32, n: usize, out: *mut u32) {
                // SAFETY: see `multiply_panels`.
                unsafe { <$element>::expand(words, n, out) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: *mut u32) {
                // SAFETY: see `multiply_panels`.
                unsafe { rows::rms_norm::<$isa, $element>(x, weight, eps, out) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn rope_and_store(call: &RopeStore<'_>, rows: Range<usize>) {
                // SAFETY: see `multiply_panels`.
                unsafe { rope::rope_and_store::<$isa, $element>(call, rows) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn attend(call: &Call, rows: &QueryRows<'_>, scratch: &mut AttentionScratch) {
                // SAFETY: see `multiply_panels`.
                unsafe { attention::attend::<$isa, $element>(call, rows, scratch) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn tile_state(
                call: &Call,
                rows: &QueryRows<'_>,
                tile: (usize, usize),
                scratch: &mut AttentionScratch,
                state: &mut SoftmaxState<'_>,
            ) {
                // SAFETY: see `multiply_panels`.
                unsafe { attention::tile_state::<$isa, $element>(call, rows, tile, scratch, state) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn merge_states(
                call: &Call,
                rows: &QueryRows<'_>,
                states: &mut [f32],
                scratch: &mut AttentionScratch,
            ) {
                // SAFETY: see `multiply_panels`.
                unsafe { attention::merge_states::<$isa, $element>(call, rows, states, scratch) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn sum_probabilities(
                call: &Call,
                rows: &QueryRows<'_>,
                scratch: &mut ObserveScratch,
            ) {
                // SAFETY: see `multiply_panels`.
                unsafe { observe::sum_probabilities::<$isa, $element>(call, rows, scratch) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn add_kept(from: &KeptStates<'_>, sums: &mut [f32]) {
                // SAFETY: see `multiply_panels`.
                unsafe { observe::add_kept::<$isa>(from, sums) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn dots(steps: usize) -> f32 {
                // SAFETY: see `multiply_panels`.
                unsafe { probe_loops::dots::<$isa, $element>(steps) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn read(words: *const u32, n: usize) -> f32 {
                // SAFETY: see `multiply_panels`.
                unsafe { probe_loops::read::<$isa>(words, n) }
            }
        }
    };
}

entry_points!(portable_f32, simd::Portable, F32);
entry_points!(portable_bf16, simd::Portable, Bf16);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2_f32, simd::Avx2, F32, "avx2,fma");
#[cfg(target_arch = "x86_64")]
entry_points!(avx2_bf16, simd::Avx2, Bf16, "avx2,fma");
#[cfg(target_arch = "x86_64")]
entry_points!(avx512_f32, simd::Avx512, F32, "avx512f,avx512bw,avx512vl,avx512dq");
#[cfg(target_arch = "x86_64")]
entry_points!(avx512_bf16, simd::Avx512, Bf16, "avx512f,avx512bw,avx512vl,avx512dq");
#[cfg(target_arch = "x86_64")]
entry_points!(
    avx512_bf16_pairs,
    simd::Avx512Bf16,
    Bf16,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
);
