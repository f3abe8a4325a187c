//! Generated from galley_kernels.h by `cargo xtask bindings`: change the header instead.

pub const GK_BAD_CALL: i32 = -1;
pub const GK_K_STEP: u32 = 64;
pub const GK_N_STEP: u32 = 64;
pub const GK_GATED_RUN: u32 = 8;
pub const GK_MAX_HEAD_DIM: u32 = 256;
pub const GK_PARTITION: u32 = 512;
pub const GK_OBSERVED_TILE: u32 = 64;
pub const GK_KEPT_QUERIES: u32 = 16;
pub const GK_PLACEHOLDER_BIT: u32 = 2147483648;
pub const GK_LINEAR_VARIANTS: u32 = 4;
pub const GK_MAX_VOCAB: u32 = 4194304;
pub const GK_NO_TOKEN: u32 = 4294967295;
pub type gk_stream = *mut ::core::ffi::c_void;
pub type gk_bf16 = u16;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_kv {
    pub base: *mut gk_bf16,
    pub arena_stride: i64,
    pub values_at: i64,
    pub block_stride: i64,
    pub arena_blocks: i32,
    pub n_layers: i32,
    pub n_kv_heads: i32,
    pub head_dim: i32,
    pub block_size: i32,
    pub layer: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_kv"][::core::mem::size_of::<gk_kv>() - 56usize];
    ["Alignment of gk_kv"][::core::mem::align_of::<gk_kv>() - 8usize];
    ["Offset of field: gk_kv::base"][::core::mem::offset_of!(gk_kv, base) - 0usize];
    ["Offset of field: gk_kv::arena_stride"][::core::mem::offset_of!(gk_kv, arena_stride) - 8usize];
    ["Offset of field: gk_kv::values_at"][::core::mem::offset_of!(gk_kv, values_at) - 16usize];
    ["Offset of field: gk_kv::block_stride"]
        [::core::mem::offset_of!(gk_kv, block_stride) - 24usize];
    ["Offset of field: gk_kv::arena_blocks"]
        [::core::mem::offset_of!(gk_kv, arena_blocks) - 32usize];
    ["Offset of field: gk_kv::n_layers"][::core::mem::offset_of!(gk_kv, n_layers) - 36usize];
    ["Offset of field: gk_kv::n_kv_heads"][::core::mem::offset_of!(gk_kv, n_kv_heads) - 40usize];
    ["Offset of field: gk_kv::head_dim"][::core::mem::offset_of!(gk_kv, head_dim) - 44usize];
    ["Offset of field: gk_kv::block_size"][::core::mem::offset_of!(gk_kv, block_size) - 48usize];
    ["Offset of field: gk_kv::layer"][::core::mem::offset_of!(gk_kv, layer) - 52usize];
};
pub const GK_SELECTED_NONE: _bindgen_ty_1 = 0;
pub const GK_SELECTED_BLOCKS: _bindgen_ty_1 = 1;
pub const GK_SELECTED_TOKENS: _bindgen_ty_1 = 2;
pub type _bindgen_ty_1 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_seq {
    pub first_row: i32,
    pub n_rows: i32,
    pub first_position: i32,
    pub tail_start: i32,
    pub block_table: i32,
    pub selected_kind: i32,
    pub n_selected: i32,
    pub selected_per_head: i32,
    pub selected: i64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_seq"][::core::mem::size_of::<gk_seq>() - 40usize];
    ["Alignment of gk_seq"][::core::mem::align_of::<gk_seq>() - 8usize];
    ["Offset of field: gk_seq::first_row"][::core::mem::offset_of!(gk_seq, first_row) - 0usize];
    ["Offset of field: gk_seq::n_rows"][::core::mem::offset_of!(gk_seq, n_rows) - 4usize];
    ["Offset of field: gk_seq::first_position"]
        [::core::mem::offset_of!(gk_seq, first_position) - 8usize];
    ["Offset of field: gk_seq::tail_start"][::core::mem::offset_of!(gk_seq, tail_start) - 12usize];
    ["Offset of field: gk_seq::block_table"]
        [::core::mem::offset_of!(gk_seq, block_table) - 16usize];
    ["Offset of field: gk_seq::selected_kind"]
        [::core::mem::offset_of!(gk_seq, selected_kind) - 20usize];
    ["Offset of field: gk_seq::n_selected"][::core::mem::offset_of!(gk_seq, n_selected) - 24usize];
    ["Offset of field: gk_seq::selected_per_head"]
        [::core::mem::offset_of!(gk_seq, selected_per_head) - 28usize];
    ["Offset of field: gk_seq::selected"][::core::mem::offset_of!(gk_seq, selected) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_batch {
    pub tokens: *const u32,
    pub positions: *const u32,
    pub slots: *const i32,
    pub seqs: *const gk_seq,
    pub block_tables: *const u32,
    pub selected: *const u32,
    pub n_rows: i32,
    pub n_seqs: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_batch"][::core::mem::size_of::<gk_batch>() - 56usize];
    ["Alignment of gk_batch"][::core::mem::align_of::<gk_batch>() - 8usize];
    ["Offset of field: gk_batch::tokens"][::core::mem::offset_of!(gk_batch, tokens) - 0usize];
    ["Offset of field: gk_batch::positions"][::core::mem::offset_of!(gk_batch, positions) - 8usize];
    ["Offset of field: gk_batch::slots"][::core::mem::offset_of!(gk_batch, slots) - 16usize];
    ["Offset of field: gk_batch::seqs"][::core::mem::offset_of!(gk_batch, seqs) - 24usize];
    ["Offset of field: gk_batch::block_tables"]
        [::core::mem::offset_of!(gk_batch, block_tables) - 32usize];
    ["Offset of field: gk_batch::selected"][::core::mem::offset_of!(gk_batch, selected) - 40usize];
    ["Offset of field: gk_batch::n_rows"][::core::mem::offset_of!(gk_batch, n_rows) - 48usize];
    ["Offset of field: gk_batch::n_seqs"][::core::mem::offset_of!(gk_batch, n_seqs) - 52usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_sampled {
    pub token: u32,
    pub logprob: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_sampled"][::core::mem::size_of::<gk_sampled>() - 8usize];
    ["Alignment of gk_sampled"][::core::mem::align_of::<gk_sampled>() - 4usize];
    ["Offset of field: gk_sampled::token"][::core::mem::offset_of!(gk_sampled, token) - 0usize];
    ["Offset of field: gk_sampled::logprob"][::core::mem::offset_of!(gk_sampled, logprob) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_embed {
    pub table: *const gk_bf16,
    pub tokens: *const u32,
    pub sampled: *const gk_sampled,
    pub out: *mut f32,
    pub table_stride: i64,
    pub out_stride: i64,
    pub n_rows: i32,
    pub n_cols: i32,
    pub n_tokens: i32,
    pub n_sampled: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_embed"][::core::mem::size_of::<gk_embed>() - 64usize];
    ["Alignment of gk_embed"][::core::mem::align_of::<gk_embed>() - 8usize];
    ["Offset of field: gk_embed::table"][::core::mem::offset_of!(gk_embed, table) - 0usize];
    ["Offset of field: gk_embed::tokens"][::core::mem::offset_of!(gk_embed, tokens) - 8usize];
    ["Offset of field: gk_embed::sampled"][::core::mem::offset_of!(gk_embed, sampled) - 16usize];
    ["Offset of field: gk_embed::out"][::core::mem::offset_of!(gk_embed, out) - 24usize];
    ["Offset of field: gk_embed::table_stride"]
        [::core::mem::offset_of!(gk_embed, table_stride) - 32usize];
    ["Offset of field: gk_embed::out_stride"]
        [::core::mem::offset_of!(gk_embed, out_stride) - 40usize];
    ["Offset of field: gk_embed::n_rows"][::core::mem::offset_of!(gk_embed, n_rows) - 48usize];
    ["Offset of field: gk_embed::n_cols"][::core::mem::offset_of!(gk_embed, n_cols) - 52usize];
    ["Offset of field: gk_embed::n_tokens"][::core::mem::offset_of!(gk_embed, n_tokens) - 56usize];
    ["Offset of field: gk_embed::n_sampled"]
        [::core::mem::offset_of!(gk_embed, n_sampled) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_rms_norm {
    pub x: *const f32,
    pub weight: *const f32,
    pub rows: *const u32,
    pub out: *mut gk_bf16,
    pub x_stride: i64,
    pub out_stride: i64,
    pub n_rows: i32,
    pub n_cols: i32,
    pub eps: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_rms_norm"][::core::mem::size_of::<gk_rms_norm>() - 64usize];
    ["Alignment of gk_rms_norm"][::core::mem::align_of::<gk_rms_norm>() - 8usize];
    ["Offset of field: gk_rms_norm::x"][::core::mem::offset_of!(gk_rms_norm, x) - 0usize];
    ["Offset of field: gk_rms_norm::weight"][::core::mem::offset_of!(gk_rms_norm, weight) - 8usize];
    ["Offset of field: gk_rms_norm::rows"][::core::mem::offset_of!(gk_rms_norm, rows) - 16usize];
    ["Offset of field: gk_rms_norm::out"][::core::mem::offset_of!(gk_rms_norm, out) - 24usize];
    ["Offset of field: gk_rms_norm::x_stride"]
        [::core::mem::offset_of!(gk_rms_norm, x_stride) - 32usize];
    ["Offset of field: gk_rms_norm::out_stride"]
        [::core::mem::offset_of!(gk_rms_norm, out_stride) - 40usize];
    ["Offset of field: gk_rms_norm::n_rows"]
        [::core::mem::offset_of!(gk_rms_norm, n_rows) - 48usize];
    ["Offset of field: gk_rms_norm::n_cols"]
        [::core::mem::offset_of!(gk_rms_norm, n_cols) - 52usize];
    ["Offset of field: gk_rms_norm::eps"][::core::mem::offset_of!(gk_rms_norm, eps) - 56usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_angles {
    pub positions: *const u32,
    pub inv_freq: *const f32,
    pub angles: *mut f32,
    pub n_rows: i32,
    pub half: i32,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_angles"][::core::mem::size_of::<gk_angles>() - 40usize];
    ["Alignment of gk_angles"][::core::mem::align_of::<gk_angles>() - 8usize];
    ["Offset of field: gk_angles::positions"]
        [::core::mem::offset_of!(gk_angles, positions) - 0usize];
    ["Offset of field: gk_angles::inv_freq"][::core::mem::offset_of!(gk_angles, inv_freq) - 8usize];
    ["Offset of field: gk_angles::angles"][::core::mem::offset_of!(gk_angles, angles) - 16usize];
    ["Offset of field: gk_angles::n_rows"][::core::mem::offset_of!(gk_angles, n_rows) - 24usize];
    ["Offset of field: gk_angles::half"][::core::mem::offset_of!(gk_angles, half) - 28usize];
    ["Offset of field: gk_angles::scale"][::core::mem::offset_of!(gk_angles, scale) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_rope_store {
    pub qkv: *const f32,
    pub angles: *const f32,
    pub q_norm: *const f32,
    pub k_norm: *const f32,
    pub slots: *const i32,
    pub q: *mut gk_bf16,
    pub kv: gk_kv,
    pub qkv_stride: i64,
    pub q_stride: i64,
    pub n_rows: i32,
    pub n_heads: i32,
    pub eps: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_rope_store"][::core::mem::size_of::<gk_rope_store>() - 136usize];
    ["Alignment of gk_rope_store"][::core::mem::align_of::<gk_rope_store>() - 8usize];
    ["Offset of field: gk_rope_store::qkv"][::core::mem::offset_of!(gk_rope_store, qkv) - 0usize];
    ["Offset of field: gk_rope_store::angles"]
        [::core::mem::offset_of!(gk_rope_store, angles) - 8usize];
    ["Offset of field: gk_rope_store::q_norm"]
        [::core::mem::offset_of!(gk_rope_store, q_norm) - 16usize];
    ["Offset of field: gk_rope_store::k_norm"]
        [::core::mem::offset_of!(gk_rope_store, k_norm) - 24usize];
    ["Offset of field: gk_rope_store::slots"]
        [::core::mem::offset_of!(gk_rope_store, slots) - 32usize];
    ["Offset of field: gk_rope_store::q"][::core::mem::offset_of!(gk_rope_store, q) - 40usize];
    ["Offset of field: gk_rope_store::kv"][::core::mem::offset_of!(gk_rope_store, kv) - 48usize];
    ["Offset of field: gk_rope_store::qkv_stride"]
        [::core::mem::offset_of!(gk_rope_store, qkv_stride) - 104usize];
    ["Offset of field: gk_rope_store::q_stride"]
        [::core::mem::offset_of!(gk_rope_store, q_stride) - 112usize];
    ["Offset of field: gk_rope_store::n_rows"]
        [::core::mem::offset_of!(gk_rope_store, n_rows) - 120usize];
    ["Offset of field: gk_rope_store::n_heads"]
        [::core::mem::offset_of!(gk_rope_store, n_heads) - 124usize];
    ["Offset of field: gk_rope_store::eps"][::core::mem::offset_of!(gk_rope_store, eps) - 128usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_copy_blocks {
    pub pairs: *const u32,
    pub kv: gk_kv,
    pub n_pairs: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_copy_blocks"][::core::mem::size_of::<gk_copy_blocks>() - 72usize];
    ["Alignment of gk_copy_blocks"][::core::mem::align_of::<gk_copy_blocks>() - 8usize];
    ["Offset of field: gk_copy_blocks::pairs"]
        [::core::mem::offset_of!(gk_copy_blocks, pairs) - 0usize];
    ["Offset of field: gk_copy_blocks::kv"][::core::mem::offset_of!(gk_copy_blocks, kv) - 8usize];
    ["Offset of field: gk_copy_blocks::n_pairs"]
        [::core::mem::offset_of!(gk_copy_blocks, n_pairs) - 64usize];
};
pub const GK_STORE: _bindgen_ty_2 = 0;
pub const GK_ADD: _bindgen_ty_2 = 1;
pub const GK_SILU_MUL: _bindgen_ty_2 = 2;
pub type _bindgen_ty_2 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_linear {
    pub w: *const gk_bf16,
    pub x: *const gk_bf16,
    pub bias: *const f32,
    pub out: *mut f32,
    pub operand_out: *mut gk_bf16,
    pub x_stride: i64,
    pub out_stride: i64,
    pub n_rows: i32,
    pub n_in: i32,
    pub n_out: i32,
    pub epilogue: i32,
    pub variant: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_linear"][::core::mem::size_of::<gk_linear>() - 80usize];
    ["Alignment of gk_linear"][::core::mem::align_of::<gk_linear>() - 8usize];
    ["Offset of field: gk_linear::w"][::core::mem::offset_of!(gk_linear, w) - 0usize];
    ["Offset of field: gk_linear::x"][::core::mem::offset_of!(gk_linear, x) - 8usize];
    ["Offset of field: gk_linear::bias"][::core::mem::offset_of!(gk_linear, bias) - 16usize];
    ["Offset of field: gk_linear::out"][::core::mem::offset_of!(gk_linear, out) - 24usize];
    ["Offset of field: gk_linear::operand_out"]
        [::core::mem::offset_of!(gk_linear, operand_out) - 32usize];
    ["Offset of field: gk_linear::x_stride"]
        [::core::mem::offset_of!(gk_linear, x_stride) - 40usize];
    ["Offset of field: gk_linear::out_stride"]
        [::core::mem::offset_of!(gk_linear, out_stride) - 48usize];
    ["Offset of field: gk_linear::n_rows"][::core::mem::offset_of!(gk_linear, n_rows) - 56usize];
    ["Offset of field: gk_linear::n_in"][::core::mem::offset_of!(gk_linear, n_in) - 60usize];
    ["Offset of field: gk_linear::n_out"][::core::mem::offset_of!(gk_linear, n_out) - 64usize];
    ["Offset of field: gk_linear::epilogue"]
        [::core::mem::offset_of!(gk_linear, epilogue) - 68usize];
    ["Offset of field: gk_linear::variant"][::core::mem::offset_of!(gk_linear, variant) - 72usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_unit {
    pub seq: i32,
    pub first_query: i32,
    pub n_queries: i32,
    pub partition: i32,
    pub n_partitions: i32,
    pub state: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_unit"][::core::mem::size_of::<gk_unit>() - 24usize];
    ["Alignment of gk_unit"][::core::mem::align_of::<gk_unit>() - 4usize];
    ["Offset of field: gk_unit::seq"][::core::mem::offset_of!(gk_unit, seq) - 0usize];
    ["Offset of field: gk_unit::first_query"]
        [::core::mem::offset_of!(gk_unit, first_query) - 4usize];
    ["Offset of field: gk_unit::n_queries"][::core::mem::offset_of!(gk_unit, n_queries) - 8usize];
    ["Offset of field: gk_unit::partition"][::core::mem::offset_of!(gk_unit, partition) - 12usize];
    ["Offset of field: gk_unit::n_partitions"]
        [::core::mem::offset_of!(gk_unit, n_partitions) - 16usize];
    ["Offset of field: gk_unit::state"][::core::mem::offset_of!(gk_unit, state) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_merge {
    pub seq: i32,
    pub first_query: i32,
    pub n_queries: i32,
    pub state: i32,
    pub n_states: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_merge"][::core::mem::size_of::<gk_merge>() - 20usize];
    ["Alignment of gk_merge"][::core::mem::align_of::<gk_merge>() - 4usize];
    ["Offset of field: gk_merge::seq"][::core::mem::offset_of!(gk_merge, seq) - 0usize];
    ["Offset of field: gk_merge::first_query"]
        [::core::mem::offset_of!(gk_merge, first_query) - 4usize];
    ["Offset of field: gk_merge::n_queries"][::core::mem::offset_of!(gk_merge, n_queries) - 8usize];
    ["Offset of field: gk_merge::state"][::core::mem::offset_of!(gk_merge, state) - 12usize];
    ["Offset of field: gk_merge::n_states"][::core::mem::offset_of!(gk_merge, n_states) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_attention {
    pub q: *const gk_bf16,
    pub out: *mut gk_bf16,
    pub units: *const gk_unit,
    pub merges: *const gk_merge,
    pub states: *mut f32,
    pub batch: gk_batch,
    pub kv: gk_kv,
    pub q_stride: i64,
    pub out_stride: i64,
    pub n_heads: i32,
    pub n_units: i32,
    pub n_merges: i32,
    pub queries_per_unit: i32,
    pub scale: f32,
    pub window: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_attention"][::core::mem::size_of::<gk_attention>() - 192usize];
    ["Alignment of gk_attention"][::core::mem::align_of::<gk_attention>() - 8usize];
    ["Offset of field: gk_attention::q"][::core::mem::offset_of!(gk_attention, q) - 0usize];
    ["Offset of field: gk_attention::out"][::core::mem::offset_of!(gk_attention, out) - 8usize];
    ["Offset of field: gk_attention::units"]
        [::core::mem::offset_of!(gk_attention, units) - 16usize];
    ["Offset of field: gk_attention::merges"]
        [::core::mem::offset_of!(gk_attention, merges) - 24usize];
    ["Offset of field: gk_attention::states"]
        [::core::mem::offset_of!(gk_attention, states) - 32usize];
    ["Offset of field: gk_attention::batch"]
        [::core::mem::offset_of!(gk_attention, batch) - 40usize];
    ["Offset of field: gk_attention::kv"][::core::mem::offset_of!(gk_attention, kv) - 96usize];
    ["Offset of field: gk_attention::q_stride"]
        [::core::mem::offset_of!(gk_attention, q_stride) - 152usize];
    ["Offset of field: gk_attention::out_stride"]
        [::core::mem::offset_of!(gk_attention, out_stride) - 160usize];
    ["Offset of field: gk_attention::n_heads"]
        [::core::mem::offset_of!(gk_attention, n_heads) - 168usize];
    ["Offset of field: gk_attention::n_units"]
        [::core::mem::offset_of!(gk_attention, n_units) - 172usize];
    ["Offset of field: gk_attention::n_merges"]
        [::core::mem::offset_of!(gk_attention, n_merges) - 176usize];
    ["Offset of field: gk_attention::queries_per_unit"]
        [::core::mem::offset_of!(gk_attention, queries_per_unit) - 180usize];
    ["Offset of field: gk_attention::scale"]
        [::core::mem::offset_of!(gk_attention, scale) - 184usize];
    ["Offset of field: gk_attention::window"]
        [::core::mem::offset_of!(gk_attention, window) - 188usize];
};
pub const GK_POOL_NONE: _bindgen_ty_3 = 0;
pub const GK_POOL_AVERAGE: _bindgen_ty_3 = 1;
pub const GK_POOL_MAX: _bindgen_ty_3 = 2;
pub type _bindgen_ty_3 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_observation {
    pub seq: i32,
    pub first_row: i32,
    pub n_rows: i32,
    pub first_candidate: i32,
    pub n_candidates: i32,
    pub granularity: i32,
    pub n_selected: i32,
    pub pool: i32,
    pub pool_width: i32,
    pub reserved: i32,
    pub scores: i64,
    pub stats: i64,
    pub out: i64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_observation"][::core::mem::size_of::<gk_observation>() - 64usize];
    ["Alignment of gk_observation"][::core::mem::align_of::<gk_observation>() - 8usize];
    ["Offset of field: gk_observation::seq"][::core::mem::offset_of!(gk_observation, seq) - 0usize];
    ["Offset of field: gk_observation::first_row"]
        [::core::mem::offset_of!(gk_observation, first_row) - 4usize];
    ["Offset of field: gk_observation::n_rows"]
        [::core::mem::offset_of!(gk_observation, n_rows) - 8usize];
    ["Offset of field: gk_observation::first_candidate"]
        [::core::mem::offset_of!(gk_observation, first_candidate) - 12usize];
    ["Offset of field: gk_observation::n_candidates"]
        [::core::mem::offset_of!(gk_observation, n_candidates) - 16usize];
    ["Offset of field: gk_observation::granularity"]
        [::core::mem::offset_of!(gk_observation, granularity) - 20usize];
    ["Offset of field: gk_observation::n_selected"]
        [::core::mem::offset_of!(gk_observation, n_selected) - 24usize];
    ["Offset of field: gk_observation::pool"]
        [::core::mem::offset_of!(gk_observation, pool) - 28usize];
    ["Offset of field: gk_observation::pool_width"]
        [::core::mem::offset_of!(gk_observation, pool_width) - 32usize];
    ["Offset of field: gk_observation::reserved"]
        [::core::mem::offset_of!(gk_observation, reserved) - 36usize];
    ["Offset of field: gk_observation::scores"]
        [::core::mem::offset_of!(gk_observation, scores) - 40usize];
    ["Offset of field: gk_observation::stats"]
        [::core::mem::offset_of!(gk_observation, stats) - 48usize];
    ["Offset of field: gk_observation::out"]
        [::core::mem::offset_of!(gk_observation, out) - 56usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_observe {
    pub q: *const gk_bf16,
    pub observations: *const gk_observation,
    pub host_observations: *const gk_observation,
    pub scores: *mut f32,
    pub stats: *mut f32,
    pub out: *mut u32,
    pub batch: gk_batch,
    pub kv: gk_kv,
    pub q_stride: i64,
    pub n_heads: i32,
    pub n_observations: i32,
    pub max_positions: i32,
    pub scale: f32,
    pub window: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_observe"][::core::mem::size_of::<gk_observe>() - 192usize];
    ["Alignment of gk_observe"][::core::mem::align_of::<gk_observe>() - 8usize];
    ["Offset of field: gk_observe::q"][::core::mem::offset_of!(gk_observe, q) - 0usize];
    ["Offset of field: gk_observe::observations"]
        [::core::mem::offset_of!(gk_observe, observations) - 8usize];
    ["Offset of field: gk_observe::host_observations"]
        [::core::mem::offset_of!(gk_observe, host_observations) - 16usize];
    ["Offset of field: gk_observe::scores"][::core::mem::offset_of!(gk_observe, scores) - 24usize];
    ["Offset of field: gk_observe::stats"][::core::mem::offset_of!(gk_observe, stats) - 32usize];
    ["Offset of field: gk_observe::out"][::core::mem::offset_of!(gk_observe, out) - 40usize];
    ["Offset of field: gk_observe::batch"][::core::mem::offset_of!(gk_observe, batch) - 48usize];
    ["Offset of field: gk_observe::kv"][::core::mem::offset_of!(gk_observe, kv) - 104usize];
    ["Offset of field: gk_observe::q_stride"]
        [::core::mem::offset_of!(gk_observe, q_stride) - 160usize];
    ["Offset of field: gk_observe::n_heads"]
        [::core::mem::offset_of!(gk_observe, n_heads) - 168usize];
    ["Offset of field: gk_observe::n_observations"]
        [::core::mem::offset_of!(gk_observe, n_observations) - 172usize];
    ["Offset of field: gk_observe::max_positions"]
        [::core::mem::offset_of!(gk_observe, max_positions) - 176usize];
    ["Offset of field: gk_observe::scale"][::core::mem::offset_of!(gk_observe, scale) - 180usize];
    ["Offset of field: gk_observe::window"][::core::mem::offset_of!(gk_observe, window) - 184usize];
};
pub const GK_SEEN: _bindgen_ty_4 = 1;
pub const GK_BANNED: _bindgen_ty_4 = 2;
pub type _bindgen_ty_4 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_edit {
    pub token: u32,
    pub flags: u32,
    pub n_in_output: u32,
    pub bias: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_edit"][::core::mem::size_of::<gk_edit>() - 16usize];
    ["Alignment of gk_edit"][::core::mem::align_of::<gk_edit>() - 4usize];
    ["Offset of field: gk_edit::token"][::core::mem::offset_of!(gk_edit, token) - 0usize];
    ["Offset of field: gk_edit::flags"][::core::mem::offset_of!(gk_edit, flags) - 4usize];
    ["Offset of field: gk_edit::n_in_output"]
        [::core::mem::offset_of!(gk_edit, n_in_output) - 8usize];
    ["Offset of field: gk_edit::bias"][::core::mem::offset_of!(gk_edit, bias) - 12usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_sample_row {
    pub seed: u64,
    pub logits_row: i32,
    pub position: u32,
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub first_edit: i32,
    pub n_edits: i32,
    pub edited: i32,
    pub n_top: i32,
    pub top: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_sample_row"][::core::mem::size_of::<gk_sample_row>() - 64usize];
    ["Alignment of gk_sample_row"][::core::mem::align_of::<gk_sample_row>() - 8usize];
    ["Offset of field: gk_sample_row::seed"][::core::mem::offset_of!(gk_sample_row, seed) - 0usize];
    ["Offset of field: gk_sample_row::logits_row"]
        [::core::mem::offset_of!(gk_sample_row, logits_row) - 8usize];
    ["Offset of field: gk_sample_row::position"]
        [::core::mem::offset_of!(gk_sample_row, position) - 12usize];
    ["Offset of field: gk_sample_row::temperature"]
        [::core::mem::offset_of!(gk_sample_row, temperature) - 16usize];
    ["Offset of field: gk_sample_row::top_k"]
        [::core::mem::offset_of!(gk_sample_row, top_k) - 20usize];
    ["Offset of field: gk_sample_row::top_p"]
        [::core::mem::offset_of!(gk_sample_row, top_p) - 24usize];
    ["Offset of field: gk_sample_row::min_p"]
        [::core::mem::offset_of!(gk_sample_row, min_p) - 28usize];
    ["Offset of field: gk_sample_row::repetition_penalty"]
        [::core::mem::offset_of!(gk_sample_row, repetition_penalty) - 32usize];
    ["Offset of field: gk_sample_row::presence_penalty"]
        [::core::mem::offset_of!(gk_sample_row, presence_penalty) - 36usize];
    ["Offset of field: gk_sample_row::frequency_penalty"]
        [::core::mem::offset_of!(gk_sample_row, frequency_penalty) - 40usize];
    ["Offset of field: gk_sample_row::first_edit"]
        [::core::mem::offset_of!(gk_sample_row, first_edit) - 44usize];
    ["Offset of field: gk_sample_row::n_edits"]
        [::core::mem::offset_of!(gk_sample_row, n_edits) - 48usize];
    ["Offset of field: gk_sample_row::edited"]
        [::core::mem::offset_of!(gk_sample_row, edited) - 52usize];
    ["Offset of field: gk_sample_row::n_top"]
        [::core::mem::offset_of!(gk_sample_row, n_top) - 56usize];
    ["Offset of field: gk_sample_row::top"][::core::mem::offset_of!(gk_sample_row, top) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_sample {
    pub logits: *const f32,
    pub rows: *const gk_sample_row,
    pub edits: *const gk_edit,
    pub edited: *mut f32,
    pub sampled: *mut gk_sampled,
    pub top: *mut gk_sampled,
    pub logits_stride: i64,
    pub n_rows: i32,
    pub n_vocab: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_sample"][::core::mem::size_of::<gk_sample>() - 64usize];
    ["Alignment of gk_sample"][::core::mem::align_of::<gk_sample>() - 8usize];
    ["Offset of field: gk_sample::logits"][::core::mem::offset_of!(gk_sample, logits) - 0usize];
    ["Offset of field: gk_sample::rows"][::core::mem::offset_of!(gk_sample, rows) - 8usize];
    ["Offset of field: gk_sample::edits"][::core::mem::offset_of!(gk_sample, edits) - 16usize];
    ["Offset of field: gk_sample::edited"][::core::mem::offset_of!(gk_sample, edited) - 24usize];
    ["Offset of field: gk_sample::sampled"][::core::mem::offset_of!(gk_sample, sampled) - 32usize];
    ["Offset of field: gk_sample::top"][::core::mem::offset_of!(gk_sample, top) - 40usize];
    ["Offset of field: gk_sample::logits_stride"]
        [::core::mem::offset_of!(gk_sample, logits_stride) - 48usize];
    ["Offset of field: gk_sample::n_rows"][::core::mem::offset_of!(gk_sample, n_rows) - 56usize];
    ["Offset of field: gk_sample::n_vocab"][::core::mem::offset_of!(gk_sample, n_vocab) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_verify_seq {
    pub first_sampled: i32,
    pub first_drafted: i32,
    pub n_drafted: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_verify_seq"][::core::mem::size_of::<gk_verify_seq>() - 12usize];
    ["Alignment of gk_verify_seq"][::core::mem::align_of::<gk_verify_seq>() - 4usize];
    ["Offset of field: gk_verify_seq::first_sampled"]
        [::core::mem::offset_of!(gk_verify_seq, first_sampled) - 0usize];
    ["Offset of field: gk_verify_seq::first_drafted"]
        [::core::mem::offset_of!(gk_verify_seq, first_drafted) - 4usize];
    ["Offset of field: gk_verify_seq::n_drafted"]
        [::core::mem::offset_of!(gk_verify_seq, n_drafted) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_verified {
    pub n_accepted: i32,
    pub next: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_verified"][::core::mem::size_of::<gk_verified>() - 8usize];
    ["Alignment of gk_verified"][::core::mem::align_of::<gk_verified>() - 4usize];
    ["Offset of field: gk_verified::n_accepted"]
        [::core::mem::offset_of!(gk_verified, n_accepted) - 0usize];
    ["Offset of field: gk_verified::next"][::core::mem::offset_of!(gk_verified, next) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_verify {
    pub sampled: *const gk_sampled,
    pub drafted: *const u32,
    pub seqs: *const gk_verify_seq,
    pub out: *mut gk_verified,
    pub n_seqs: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_verify"][::core::mem::size_of::<gk_verify>() - 40usize];
    ["Alignment of gk_verify"][::core::mem::align_of::<gk_verify>() - 8usize];
    ["Offset of field: gk_verify::sampled"][::core::mem::offset_of!(gk_verify, sampled) - 0usize];
    ["Offset of field: gk_verify::drafted"][::core::mem::offset_of!(gk_verify, drafted) - 8usize];
    ["Offset of field: gk_verify::seqs"][::core::mem::offset_of!(gk_verify, seqs) - 16usize];
    ["Offset of field: gk_verify::out"][::core::mem::offset_of!(gk_verify, out) - 24usize];
    ["Offset of field: gk_verify::n_seqs"][::core::mem::offset_of!(gk_verify, n_seqs) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_history_seq {
    pub first: i64,
    pub n_tokens: i32,
    pub min_n: i32,
    pub max_n: i32,
    pub n: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_history_seq"][::core::mem::size_of::<gk_history_seq>() - 24usize];
    ["Alignment of gk_history_seq"][::core::mem::align_of::<gk_history_seq>() - 8usize];
    ["Offset of field: gk_history_seq::first"]
        [::core::mem::offset_of!(gk_history_seq, first) - 0usize];
    ["Offset of field: gk_history_seq::n_tokens"]
        [::core::mem::offset_of!(gk_history_seq, n_tokens) - 8usize];
    ["Offset of field: gk_history_seq::min_n"]
        [::core::mem::offset_of!(gk_history_seq, min_n) - 12usize];
    ["Offset of field: gk_history_seq::max_n"]
        [::core::mem::offset_of!(gk_history_seq, max_n) - 16usize];
    ["Offset of field: gk_history_seq::n"][::core::mem::offset_of!(gk_history_seq, n) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_history {
    pub tokens: *const u32,
    pub seqs: *const gk_history_seq,
    pub found: *mut u32,
    pub counts: *mut i32,
    pub n_seqs: i32,
    pub found_stride: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_history"][::core::mem::size_of::<gk_history>() - 40usize];
    ["Alignment of gk_history"][::core::mem::align_of::<gk_history>() - 8usize];
    ["Offset of field: gk_history::tokens"][::core::mem::offset_of!(gk_history, tokens) - 0usize];
    ["Offset of field: gk_history::seqs"][::core::mem::offset_of!(gk_history, seqs) - 8usize];
    ["Offset of field: gk_history::found"][::core::mem::offset_of!(gk_history, found) - 16usize];
    ["Offset of field: gk_history::counts"][::core::mem::offset_of!(gk_history, counts) - 24usize];
    ["Offset of field: gk_history::n_seqs"][::core::mem::offset_of!(gk_history, n_seqs) - 32usize];
    ["Offset of field: gk_history::found_stride"]
        [::core::mem::offset_of!(gk_history, found_stride) - 36usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gk_kernels {
    pub name: *const ::core::ffi::c_char,
    pub error_name:
        ::core::option::Option<unsafe extern "C" fn(error: i32) -> *const ::core::ffi::c_char>,
    pub embed:
        ::core::option::Option<unsafe extern "C" fn(arg1: *const gk_embed, arg2: gk_stream) -> i32>,
    pub rms_norm: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_rms_norm, arg2: gk_stream) -> i32,
    >,
    pub angles: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_angles, arg2: gk_stream) -> i32,
    >,
    pub rope_store: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_rope_store, arg2: gk_stream) -> i32,
    >,
    pub copy_blocks: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_copy_blocks, arg2: gk_stream) -> i32,
    >,
    pub linear: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_linear, arg2: gk_stream) -> i32,
    >,
    pub attention: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_attention, arg2: gk_stream) -> i32,
    >,
    pub observe: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_observe, arg2: gk_stream) -> i32,
    >,
    pub sample: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_sample, arg2: gk_stream) -> i32,
    >,
    pub verify: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_verify, arg2: gk_stream) -> i32,
    >,
    pub history: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gk_history, arg2: gk_stream) -> i32,
    >,
    pub attention_queries: ::core::option::Option<unsafe extern "C" fn(head_dim: i32) -> i32>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gk_kernels"][::core::mem::size_of::<gk_kernels>() - 112usize];
    ["Alignment of gk_kernels"][::core::mem::align_of::<gk_kernels>() - 8usize];
    ["Offset of field: gk_kernels::name"][::core::mem::offset_of!(gk_kernels, name) - 0usize];
    ["Offset of field: gk_kernels::error_name"]
        [::core::mem::offset_of!(gk_kernels, error_name) - 8usize];
    ["Offset of field: gk_kernels::embed"][::core::mem::offset_of!(gk_kernels, embed) - 16usize];
    ["Offset of field: gk_kernels::rms_norm"]
        [::core::mem::offset_of!(gk_kernels, rms_norm) - 24usize];
    ["Offset of field: gk_kernels::angles"][::core::mem::offset_of!(gk_kernels, angles) - 32usize];
    ["Offset of field: gk_kernels::rope_store"]
        [::core::mem::offset_of!(gk_kernels, rope_store) - 40usize];
    ["Offset of field: gk_kernels::copy_blocks"]
        [::core::mem::offset_of!(gk_kernels, copy_blocks) - 48usize];
    ["Offset of field: gk_kernels::linear"][::core::mem::offset_of!(gk_kernels, linear) - 56usize];
    ["Offset of field: gk_kernels::attention"]
        [::core::mem::offset_of!(gk_kernels, attention) - 64usize];
    ["Offset of field: gk_kernels::observe"]
        [::core::mem::offset_of!(gk_kernels, observe) - 72usize];
    ["Offset of field: gk_kernels::sample"][::core::mem::offset_of!(gk_kernels, sample) - 80usize];
    ["Offset of field: gk_kernels::verify"][::core::mem::offset_of!(gk_kernels, verify) - 88usize];
    ["Offset of field: gk_kernels::history"]
        [::core::mem::offset_of!(gk_kernels, history) - 96usize];
    ["Offset of field: gk_kernels::attention_queries"]
        [::core::mem::offset_of!(gk_kernels, attention_queries) - 104usize];
};
unsafe extern "C" {
    pub fn galley_cuda_kernels() -> *const gk_kernels;
}
unsafe extern "C" {
    pub fn galley_emulated_kernels() -> *const gk_kernels;
}
