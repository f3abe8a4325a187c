//! Generated from galley_drafter.h by `cargo xtask bindings`: change the header instead.

pub const GD_ABI_MAJOR: u32 = 1;
pub const GD_ABI_MINOR: u32 = 1;
pub const GD_ENTRY_SYMBOL: &[u8; 18] = b"galley_drafter_v1\0";
pub const GD_EXT_MODELS: &[u8; 16] = b"galley.models/1\0";
pub const GD_EXT_VIEWS: &[u8; 15] = b"galley.views/1\0";
pub const GD_EXT_OBSERVE: &[u8; 17] = b"galley.observe/1\0";
pub const GD_EXT_LAYERS: &[u8; 16] = b"galley.layers/1\0";
pub const GD_EXT_CHAIN: &[u8; 15] = b"galley.chain/1\0";
pub const GD_EXT_TOKENS: &[u8; 16] = b"galley.tokens/1\0";
pub const GD_EXT_SUFFIX: &[u8; 16] = b"galley.suffix/1\0";
pub const GD_EXT_REPLAY: &[u8; 16] = b"galley.replay/1\0";
pub const GD_EXT_FEEDBACK: &[u8; 18] = b"galley.feedback/1\0";
pub const GD_MANIFEST_MARK: &[u8; 27] = b"galley-drafter-manifest/1:\0";
pub type gd_status = i32;
pub const GD_OK: _bindgen_ty_1 = 0;
pub const GD_NO_GUESS: _bindgen_ty_1 = 1;
pub const GD_UNSUPPORTED: _bindgen_ty_1 = -1;
pub const GD_INVALID: _bindgen_ty_1 = -2;
pub const GD_WRONG_PHASE: _bindgen_ty_1 = -3;
pub const GD_NO_MEMORY: _bindgen_ty_1 = -4;
pub const GD_PANIC: _bindgen_ty_1 = -5;
pub const GD_INTERNAL: _bindgen_ty_1 = -6;
pub type _bindgen_ty_1 = ::core::ffi::c_int;
pub const GD_LOG_DEBUG: _bindgen_ty_2 = 0;
pub const GD_LOG_INFO: _bindgen_ty_2 = 1;
pub const GD_LOG_WARN: _bindgen_ty_2 = 2;
pub const GD_LOG_ERROR: _bindgen_ty_2 = 3;
pub type _bindgen_ty_2 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_str {
    pub ptr: *const ::core::ffi::c_char,
    pub len: usize,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_str"][::core::mem::size_of::<gd_str>() - 16usize];
    ["Alignment of gd_str"][::core::mem::align_of::<gd_str>() - 8usize];
    ["Offset of field: gd_str::ptr"][::core::mem::offset_of!(gd_str, ptr) - 0usize];
    ["Offset of field: gd_str::len"][::core::mem::offset_of!(gd_str, len) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_model {
    pub id: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_model"][::core::mem::size_of::<gd_model>() - 8usize];
    ["Alignment of gd_model"][::core::mem::align_of::<gd_model>() - 8usize];
    ["Offset of field: gd_model::id"][::core::mem::offset_of!(gd_model, id) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_view {
    pub id: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_view"][::core::mem::size_of::<gd_view>() - 8usize];
    ["Alignment of gd_view"][::core::mem::align_of::<gd_view>() - 8usize];
    ["Offset of field: gd_view::id"][::core::mem::offset_of!(gd_view, id) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_layers {
    pub id: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_layers"][::core::mem::size_of::<gd_layers>() - 8usize];
    ["Alignment of gd_layers"][::core::mem::align_of::<gd_layers>() - 8usize];
    ["Offset of field: gd_layers::id"][::core::mem::offset_of!(gd_layers, id) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_queue {
    pub id: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_queue"][::core::mem::size_of::<gd_queue>() - 8usize];
    ["Alignment of gd_queue"][::core::mem::align_of::<gd_queue>() - 8usize];
    ["Offset of field: gd_queue::id"][::core::mem::offset_of!(gd_queue, id) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_matcher {
    pub id: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_matcher"][::core::mem::size_of::<gd_matcher>() - 8usize];
    ["Alignment of gd_matcher"][::core::mem::align_of::<gd_matcher>() - 8usize];
    ["Offset of field: gd_matcher::id"][::core::mem::offset_of!(gd_matcher, id) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host {
    pub struct_size: usize,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub host_data: *mut ::core::ffi::c_void,
    pub extension: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            id: *const ::core::ffi::c_char,
        ) -> *const ::core::ffi::c_void,
    >,
    pub log: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gd_host, level: i32, message: gd_str),
    >,
    pub rerecord: ::core::option::Option<unsafe extern "C" fn(arg1: *const gd_host)>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host"][::core::mem::size_of::<gd_host>() - 48usize];
    ["Alignment of gd_host"][::core::mem::align_of::<gd_host>() - 8usize];
    ["Offset of field: gd_host::struct_size"]
        [::core::mem::offset_of!(gd_host, struct_size) - 0usize];
    ["Offset of field: gd_host::abi_major"][::core::mem::offset_of!(gd_host, abi_major) - 8usize];
    ["Offset of field: gd_host::abi_minor"][::core::mem::offset_of!(gd_host, abi_minor) - 12usize];
    ["Offset of field: gd_host::host_data"][::core::mem::offset_of!(gd_host, host_data) - 16usize];
    ["Offset of field: gd_host::extension"][::core::mem::offset_of!(gd_host, extension) - 24usize];
    ["Offset of field: gd_host::log"][::core::mem::offset_of!(gd_host, log) - 32usize];
    ["Offset of field: gd_host::rerecord"][::core::mem::offset_of!(gd_host, rerecord) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_model_info {
    pub struct_size: usize,
    pub n_layers: u32,
    pub n_heads: u32,
    pub n_kv_heads: u32,
    pub head_dim: u32,
    pub hidden_size: u32,
    pub vocab_size: u32,
    pub block_size_tokens: u32,
    pub max_context_tokens: u64,
    pub n_parameters: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_model_info"][::core::mem::size_of::<gd_model_info>() - 56usize];
    ["Alignment of gd_model_info"][::core::mem::align_of::<gd_model_info>() - 8usize];
    ["Offset of field: gd_model_info::struct_size"]
        [::core::mem::offset_of!(gd_model_info, struct_size) - 0usize];
    ["Offset of field: gd_model_info::n_layers"]
        [::core::mem::offset_of!(gd_model_info, n_layers) - 8usize];
    ["Offset of field: gd_model_info::n_heads"]
        [::core::mem::offset_of!(gd_model_info, n_heads) - 12usize];
    ["Offset of field: gd_model_info::n_kv_heads"]
        [::core::mem::offset_of!(gd_model_info, n_kv_heads) - 16usize];
    ["Offset of field: gd_model_info::head_dim"]
        [::core::mem::offset_of!(gd_model_info, head_dim) - 20usize];
    ["Offset of field: gd_model_info::hidden_size"]
        [::core::mem::offset_of!(gd_model_info, hidden_size) - 24usize];
    ["Offset of field: gd_model_info::vocab_size"]
        [::core::mem::offset_of!(gd_model_info, vocab_size) - 28usize];
    ["Offset of field: gd_model_info::block_size_tokens"]
        [::core::mem::offset_of!(gd_model_info, block_size_tokens) - 32usize];
    ["Offset of field: gd_model_info::max_context_tokens"]
        [::core::mem::offset_of!(gd_model_info, max_context_tokens) - 40usize];
    ["Offset of field: gd_model_info::n_parameters"]
        [::core::mem::offset_of!(gd_model_info, n_parameters) - 48usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_models {
    pub struct_size: usize,
    pub describe: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_model,
            out: *mut gd_model_info,
        ) -> gd_status,
    >,
    pub load: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gd_host, source: gd_str, out: *mut gd_model) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_models"][::core::mem::size_of::<gd_host_models>() - 24usize];
    ["Alignment of gd_host_models"][::core::mem::align_of::<gd_host_models>() - 8usize];
    ["Offset of field: gd_host_models::struct_size"]
        [::core::mem::offset_of!(gd_host_models, struct_size) - 0usize];
    ["Offset of field: gd_host_models::describe"]
        [::core::mem::offset_of!(gd_host_models, describe) - 8usize];
    ["Offset of field: gd_host_models::load"]
        [::core::mem::offset_of!(gd_host_models, load) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_window_args {
    pub struct_size: usize,
    pub model: gd_model,
    pub n_sinks: u32,
    pub budget_tokens: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_window_args"][::core::mem::size_of::<gd_window_args>() - 24usize];
    ["Alignment of gd_window_args"][::core::mem::align_of::<gd_window_args>() - 8usize];
    ["Offset of field: gd_window_args::struct_size"]
        [::core::mem::offset_of!(gd_window_args, struct_size) - 0usize];
    ["Offset of field: gd_window_args::model"]
        [::core::mem::offset_of!(gd_window_args, model) - 8usize];
    ["Offset of field: gd_window_args::n_sinks"]
        [::core::mem::offset_of!(gd_window_args, n_sinks) - 16usize];
    ["Offset of field: gd_window_args::budget_tokens"]
        [::core::mem::offset_of!(gd_window_args, budget_tokens) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_views {
    pub struct_size: usize,
    pub window: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: *const gd_window_args,
            out: *mut gd_view,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_views"][::core::mem::size_of::<gd_host_views>() - 16usize];
    ["Alignment of gd_host_views"][::core::mem::align_of::<gd_host_views>() - 8usize];
    ["Offset of field: gd_host_views::struct_size"]
        [::core::mem::offset_of!(gd_host_views, struct_size) - 0usize];
    ["Offset of field: gd_host_views::window"]
        [::core::mem::offset_of!(gd_host_views, window) - 8usize];
};
pub const GD_SELECT_TOKENS: _bindgen_ty_3 = 0;
pub const GD_SELECT_BLOCKS: _bindgen_ty_3 = 1;
pub type _bindgen_ty_3 = ::core::ffi::c_uint;
pub const GD_POOL_NONE: _bindgen_ty_4 = 0;
pub const GD_POOL_AVERAGE: _bindgen_ty_4 = 1;
pub const GD_POOL_MAX: _bindgen_ty_4 = 2;
pub type _bindgen_ty_4 = ::core::ffi::c_uint;
pub const GD_OBSERVE_CONTEXT: _bindgen_ty_5 = 0;
pub const GD_OBSERVE_VERIFY: _bindgen_ty_5 = 1;
pub type _bindgen_ty_5 = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_observe_args {
    pub struct_size: usize,
    pub budget_tokens: u32,
    pub granularity: u32,
    pub n_sinks: u32,
    pub n_recent: u32,
    pub observe: u32,
    pub n_queries: u32,
    pub pool: u32,
    pub pool_width: u32,
    pub refresh: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_observe_args"][::core::mem::size_of::<gd_observe_args>() - 48usize];
    ["Alignment of gd_observe_args"][::core::mem::align_of::<gd_observe_args>() - 8usize];
    ["Offset of field: gd_observe_args::struct_size"]
        [::core::mem::offset_of!(gd_observe_args, struct_size) - 0usize];
    ["Offset of field: gd_observe_args::budget_tokens"]
        [::core::mem::offset_of!(gd_observe_args, budget_tokens) - 8usize];
    ["Offset of field: gd_observe_args::granularity"]
        [::core::mem::offset_of!(gd_observe_args, granularity) - 12usize];
    ["Offset of field: gd_observe_args::n_sinks"]
        [::core::mem::offset_of!(gd_observe_args, n_sinks) - 16usize];
    ["Offset of field: gd_observe_args::n_recent"]
        [::core::mem::offset_of!(gd_observe_args, n_recent) - 20usize];
    ["Offset of field: gd_observe_args::observe"]
        [::core::mem::offset_of!(gd_observe_args, observe) - 24usize];
    ["Offset of field: gd_observe_args::n_queries"]
        [::core::mem::offset_of!(gd_observe_args, n_queries) - 28usize];
    ["Offset of field: gd_observe_args::pool"]
        [::core::mem::offset_of!(gd_observe_args, pool) - 32usize];
    ["Offset of field: gd_observe_args::pool_width"]
        [::core::mem::offset_of!(gd_observe_args, pool_width) - 36usize];
    ["Offset of field: gd_observe_args::refresh"]
        [::core::mem::offset_of!(gd_observe_args, refresh) - 40usize];
    ["Offset of field: gd_observe_args::reserved"]
        [::core::mem::offset_of!(gd_observe_args, reserved) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_observe {
    pub struct_size: usize,
    pub observe: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: *const gd_observe_args,
            out: *mut gd_view,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_observe"][::core::mem::size_of::<gd_host_observe>() - 16usize];
    ["Alignment of gd_host_observe"][::core::mem::align_of::<gd_host_observe>() - 8usize];
    ["Offset of field: gd_host_observe::struct_size"]
        [::core::mem::offset_of!(gd_host_observe, struct_size) - 0usize];
    ["Offset of field: gd_host_observe::observe"]
        [::core::mem::offset_of!(gd_host_observe, observe) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_layers {
    pub struct_size: usize,
    pub mask: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_model,
            attention: *const u8,
            mlp: *const u8,
            n_layers: u32,
            out: *mut gd_layers,
        ) -> gd_status,
    >,
    pub change: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_layers,
            attention: *const u8,
            mlp: *const u8,
            n_layers: u32,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_layers"][::core::mem::size_of::<gd_host_layers>() - 24usize];
    ["Alignment of gd_host_layers"][::core::mem::align_of::<gd_host_layers>() - 8usize];
    ["Offset of field: gd_host_layers::struct_size"]
        [::core::mem::offset_of!(gd_host_layers, struct_size) - 0usize];
    ["Offset of field: gd_host_layers::mask"]
        [::core::mem::offset_of!(gd_host_layers, mask) - 8usize];
    ["Offset of field: gd_host_layers::change"]
        [::core::mem::offset_of!(gd_host_layers, change) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_chain_args {
    pub struct_size: usize,
    pub queue: gd_queue,
    pub model: gd_model,
    pub view: gd_view,
    pub layers: gd_layers,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_chain_args"][::core::mem::size_of::<gd_chain_args>() - 40usize];
    ["Alignment of gd_chain_args"][::core::mem::align_of::<gd_chain_args>() - 8usize];
    ["Offset of field: gd_chain_args::struct_size"]
        [::core::mem::offset_of!(gd_chain_args, struct_size) - 0usize];
    ["Offset of field: gd_chain_args::queue"]
        [::core::mem::offset_of!(gd_chain_args, queue) - 8usize];
    ["Offset of field: gd_chain_args::model"]
        [::core::mem::offset_of!(gd_chain_args, model) - 16usize];
    ["Offset of field: gd_chain_args::view"]
        [::core::mem::offset_of!(gd_chain_args, view) - 24usize];
    ["Offset of field: gd_chain_args::layers"]
        [::core::mem::offset_of!(gd_chain_args, layers) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_chain {
    pub struct_size: usize,
    pub chain: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gd_host, arg2: *const gd_chain_args) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_chain"][::core::mem::size_of::<gd_host_chain>() - 16usize];
    ["Alignment of gd_host_chain"][::core::mem::align_of::<gd_host_chain>() - 8usize];
    ["Offset of field: gd_host_chain::struct_size"]
        [::core::mem::offset_of!(gd_host_chain, struct_size) - 0usize];
    ["Offset of field: gd_host_chain::chain"]
        [::core::mem::offset_of!(gd_host_chain, chain) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_row {
    pub struct_size: usize,
    pub sequence: u64,
    pub n_tokens: u64,
    pub tokens: *const u32,
    pub draft_length: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_row"][::core::mem::size_of::<gd_row>() - 40usize];
    ["Alignment of gd_row"][::core::mem::align_of::<gd_row>() - 8usize];
    ["Offset of field: gd_row::struct_size"][::core::mem::offset_of!(gd_row, struct_size) - 0usize];
    ["Offset of field: gd_row::sequence"][::core::mem::offset_of!(gd_row, sequence) - 8usize];
    ["Offset of field: gd_row::n_tokens"][::core::mem::offset_of!(gd_row, n_tokens) - 16usize];
    ["Offset of field: gd_row::tokens"][::core::mem::offset_of!(gd_row, tokens) - 24usize];
    ["Offset of field: gd_row::draft_length"]
        [::core::mem::offset_of!(gd_row, draft_length) - 32usize];
    ["Offset of field: gd_row::reserved"][::core::mem::offset_of!(gd_row, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_tokens {
    pub struct_size: usize,
    pub lookup: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_queue,
            min_n: u32,
            max_n: u32,
        ) -> gd_status,
    >,
    pub row: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_queue,
            row: u32,
            out: *mut gd_row,
        ) -> gd_status,
    >,
    pub push: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_queue,
            row: u32,
            tokens: *const u32,
            n_tokens: u32,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_tokens"][::core::mem::size_of::<gd_host_tokens>() - 32usize];
    ["Alignment of gd_host_tokens"][::core::mem::align_of::<gd_host_tokens>() - 8usize];
    ["Offset of field: gd_host_tokens::struct_size"]
        [::core::mem::offset_of!(gd_host_tokens, struct_size) - 0usize];
    ["Offset of field: gd_host_tokens::lookup"]
        [::core::mem::offset_of!(gd_host_tokens, lookup) - 8usize];
    ["Offset of field: gd_host_tokens::row"]
        [::core::mem::offset_of!(gd_host_tokens, row) - 16usize];
    ["Offset of field: gd_host_tokens::push"]
        [::core::mem::offset_of!(gd_host_tokens, push) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_matcher_args {
    pub struct_size: usize,
    pub min_match: u32,
    pub max_match: u32,
    pub tokens_per_match: f64,
    pub min_frequency: f64,
    pub memory: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_matcher_args"][::core::mem::size_of::<gd_matcher_args>() - 40usize];
    ["Alignment of gd_matcher_args"][::core::mem::align_of::<gd_matcher_args>() - 8usize];
    ["Offset of field: gd_matcher_args::struct_size"]
        [::core::mem::offset_of!(gd_matcher_args, struct_size) - 0usize];
    ["Offset of field: gd_matcher_args::min_match"]
        [::core::mem::offset_of!(gd_matcher_args, min_match) - 8usize];
    ["Offset of field: gd_matcher_args::max_match"]
        [::core::mem::offset_of!(gd_matcher_args, max_match) - 12usize];
    ["Offset of field: gd_matcher_args::tokens_per_match"]
        [::core::mem::offset_of!(gd_matcher_args, tokens_per_match) - 16usize];
    ["Offset of field: gd_matcher_args::min_frequency"]
        [::core::mem::offset_of!(gd_matcher_args, min_frequency) - 24usize];
    ["Offset of field: gd_matcher_args::memory"]
        [::core::mem::offset_of!(gd_matcher_args, memory) - 32usize];
    ["Offset of field: gd_matcher_args::reserved"]
        [::core::mem::offset_of!(gd_matcher_args, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_query {
    pub struct_size: usize,
    pub queue: gd_queue,
    pub matcher: gd_matcher,
    pub row: u32,
    pub capacity: u32,
    pub tokens: *mut u32,
    pub frequencies: *mut f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_query"][::core::mem::size_of::<gd_query>() - 48usize];
    ["Alignment of gd_query"][::core::mem::align_of::<gd_query>() - 8usize];
    ["Offset of field: gd_query::struct_size"]
        [::core::mem::offset_of!(gd_query, struct_size) - 0usize];
    ["Offset of field: gd_query::queue"][::core::mem::offset_of!(gd_query, queue) - 8usize];
    ["Offset of field: gd_query::matcher"][::core::mem::offset_of!(gd_query, matcher) - 16usize];
    ["Offset of field: gd_query::row"][::core::mem::offset_of!(gd_query, row) - 24usize];
    ["Offset of field: gd_query::capacity"][::core::mem::offset_of!(gd_query, capacity) - 28usize];
    ["Offset of field: gd_query::tokens"][::core::mem::offset_of!(gd_query, tokens) - 32usize];
    ["Offset of field: gd_query::frequencies"]
        [::core::mem::offset_of!(gd_query, frequencies) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_match {
    pub struct_size: usize,
    pub count: u64,
    pub match_tokens: u32,
    pub n_tokens: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_match"][::core::mem::size_of::<gd_match>() - 24usize];
    ["Alignment of gd_match"][::core::mem::align_of::<gd_match>() - 8usize];
    ["Offset of field: gd_match::struct_size"]
        [::core::mem::offset_of!(gd_match, struct_size) - 0usize];
    ["Offset of field: gd_match::count"][::core::mem::offset_of!(gd_match, count) - 8usize];
    ["Offset of field: gd_match::match_tokens"]
        [::core::mem::offset_of!(gd_match, match_tokens) - 16usize];
    ["Offset of field: gd_match::n_tokens"][::core::mem::offset_of!(gd_match, n_tokens) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_suffix {
    pub struct_size: usize,
    pub matcher: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: *const gd_matcher_args,
            out: *mut gd_matcher,
        ) -> gd_status,
    >,
    pub propose: ::core::option::Option<
        unsafe extern "C" fn(arg1: *const gd_host, arg2: gd_queue, arg3: gd_matcher) -> gd_status,
    >,
    pub query: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: *const gd_query,
            out: *mut gd_match,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_suffix"][::core::mem::size_of::<gd_host_suffix>() - 32usize];
    ["Alignment of gd_host_suffix"][::core::mem::align_of::<gd_host_suffix>() - 8usize];
    ["Offset of field: gd_host_suffix::struct_size"]
        [::core::mem::offset_of!(gd_host_suffix, struct_size) - 0usize];
    ["Offset of field: gd_host_suffix::matcher"]
        [::core::mem::offset_of!(gd_host_suffix, matcher) - 8usize];
    ["Offset of field: gd_host_suffix::propose"]
        [::core::mem::offset_of!(gd_host_suffix, propose) - 16usize];
    ["Offset of field: gd_host_suffix::query"]
        [::core::mem::offset_of!(gd_host_suffix, query) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_replay_score {
    pub struct_size: usize,
    pub n_matched: u64,
    pub n_compared: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_replay_score"][::core::mem::size_of::<gd_replay_score>() - 24usize];
    ["Alignment of gd_replay_score"][::core::mem::align_of::<gd_replay_score>() - 8usize];
    ["Offset of field: gd_replay_score::struct_size"]
        [::core::mem::offset_of!(gd_replay_score, struct_size) - 0usize];
    ["Offset of field: gd_replay_score::n_matched"]
        [::core::mem::offset_of!(gd_replay_score, n_matched) - 8usize];
    ["Offset of field: gd_replay_score::n_compared"]
        [::core::mem::offset_of!(gd_replay_score, n_compared) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_host_replay {
    pub struct_size: usize,
    pub replay: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_queue,
            arg3: gd_layers,
            n_tokens: u32,
        ) -> gd_status,
    >,
    pub score: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *const gd_host,
            arg2: gd_layers,
            out: *mut gd_replay_score,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_host_replay"][::core::mem::size_of::<gd_host_replay>() - 24usize];
    ["Alignment of gd_host_replay"][::core::mem::align_of::<gd_host_replay>() - 8usize];
    ["Offset of field: gd_host_replay::struct_size"]
        [::core::mem::offset_of!(gd_host_replay, struct_size) - 0usize];
    ["Offset of field: gd_host_replay::replay"]
        [::core::mem::offset_of!(gd_host_replay, replay) - 8usize];
    ["Offset of field: gd_host_replay::score"]
        [::core::mem::offset_of!(gd_host_replay, score) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_limits {
    pub struct_size: usize,
    pub max_rows: u32,
    pub max_draft_length: u32,
    pub max_context_tokens: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_limits"][::core::mem::size_of::<gd_limits>() - 24usize];
    ["Alignment of gd_limits"][::core::mem::align_of::<gd_limits>() - 8usize];
    ["Offset of field: gd_limits::struct_size"]
        [::core::mem::offset_of!(gd_limits, struct_size) - 0usize];
    ["Offset of field: gd_limits::max_rows"][::core::mem::offset_of!(gd_limits, max_rows) - 8usize];
    ["Offset of field: gd_limits::max_draft_length"]
        [::core::mem::offset_of!(gd_limits, max_draft_length) - 12usize];
    ["Offset of field: gd_limits::max_context_tokens"]
        [::core::mem::offset_of!(gd_limits, max_context_tokens) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_batch {
    pub struct_size: usize,
    pub queue: gd_queue,
    pub n_rows: u32,
    pub draft_length: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_batch"][::core::mem::size_of::<gd_batch>() - 24usize];
    ["Alignment of gd_batch"][::core::mem::align_of::<gd_batch>() - 8usize];
    ["Offset of field: gd_batch::struct_size"]
        [::core::mem::offset_of!(gd_batch, struct_size) - 0usize];
    ["Offset of field: gd_batch::queue"][::core::mem::offset_of!(gd_batch, queue) - 8usize];
    ["Offset of field: gd_batch::n_rows"][::core::mem::offset_of!(gd_batch, n_rows) - 16usize];
    ["Offset of field: gd_batch::draft_length"]
        [::core::mem::offset_of!(gd_batch, draft_length) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_cost {
    pub struct_size: usize,
    pub weights_read: f64,
    pub kv_tokens_read: f64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_cost"][::core::mem::size_of::<gd_cost>() - 24usize];
    ["Alignment of gd_cost"][::core::mem::align_of::<gd_cost>() - 8usize];
    ["Offset of field: gd_cost::struct_size"]
        [::core::mem::offset_of!(gd_cost, struct_size) - 0usize];
    ["Offset of field: gd_cost::weights_read"]
        [::core::mem::offset_of!(gd_cost, weights_read) - 8usize];
    ["Offset of field: gd_cost::kv_tokens_read"]
        [::core::mem::offset_of!(gd_cost, kv_tokens_read) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_verified {
    pub struct_size: usize,
    pub n_rows: u32,
    pub reserved: u32,
    pub sequences: *const u64,
    pub n_proposed: *const u32,
    pub n_accepted: *const u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_verified"][::core::mem::size_of::<gd_verified>() - 40usize];
    ["Alignment of gd_verified"][::core::mem::align_of::<gd_verified>() - 8usize];
    ["Offset of field: gd_verified::struct_size"]
        [::core::mem::offset_of!(gd_verified, struct_size) - 0usize];
    ["Offset of field: gd_verified::n_rows"][::core::mem::offset_of!(gd_verified, n_rows) - 8usize];
    ["Offset of field: gd_verified::reserved"]
        [::core::mem::offset_of!(gd_verified, reserved) - 12usize];
    ["Offset of field: gd_verified::sequences"]
        [::core::mem::offset_of!(gd_verified, sequences) - 16usize];
    ["Offset of field: gd_verified::n_proposed"]
        [::core::mem::offset_of!(gd_verified, n_proposed) - 24usize];
    ["Offset of field: gd_verified::n_accepted"]
        [::core::mem::offset_of!(gd_verified, n_accepted) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_drafter_feedback {
    pub struct_size: usize,
    pub feedback: ::core::option::Option<
        unsafe extern "C" fn(arg1: *mut gd_drafter, arg2: *const gd_verified),
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_drafter_feedback"][::core::mem::size_of::<gd_drafter_feedback>() - 16usize];
    ["Alignment of gd_drafter_feedback"][::core::mem::align_of::<gd_drafter_feedback>() - 8usize];
    ["Offset of field: gd_drafter_feedback::struct_size"]
        [::core::mem::offset_of!(gd_drafter_feedback, struct_size) - 0usize];
    ["Offset of field: gd_drafter_feedback::feedback"]
        [::core::mem::offset_of!(gd_drafter_feedback, feedback) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_drafter {
    pub struct_size: usize,
    pub data: *mut ::core::ffi::c_void,
    pub destroy: ::core::option::Option<unsafe extern "C" fn(arg1: *mut gd_drafter)>,
    pub activate: ::core::option::Option<
        unsafe extern "C" fn(arg1: *mut gd_drafter, arg2: *const gd_limits) -> gd_status,
    >,
    pub deactivate: ::core::option::Option<unsafe extern "C" fn(arg1: *mut gd_drafter)>,
    pub after_prefill: ::core::option::Option<
        unsafe extern "C" fn(arg1: *mut gd_drafter, arg2: *const gd_batch) -> gd_status,
    >,
    pub guess: ::core::option::Option<
        unsafe extern "C" fn(arg1: *mut gd_drafter, arg2: *const gd_batch) -> gd_status,
    >,
    pub end: ::core::option::Option<unsafe extern "C" fn(arg1: *mut gd_drafter, sequence: u64)>,
    pub cost: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *mut gd_drafter,
            context_tokens: u64,
            budget_tokens: u32,
            out: *mut gd_cost,
        ) -> gd_status,
    >,
    pub get_extension: ::core::option::Option<
        unsafe extern "C" fn(
            arg1: *mut gd_drafter,
            id: *const ::core::ffi::c_char,
        ) -> *const ::core::ffi::c_void,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_drafter"][::core::mem::size_of::<gd_drafter>() - 80usize];
    ["Alignment of gd_drafter"][::core::mem::align_of::<gd_drafter>() - 8usize];
    ["Offset of field: gd_drafter::struct_size"]
        [::core::mem::offset_of!(gd_drafter, struct_size) - 0usize];
    ["Offset of field: gd_drafter::data"][::core::mem::offset_of!(gd_drafter, data) - 8usize];
    ["Offset of field: gd_drafter::destroy"]
        [::core::mem::offset_of!(gd_drafter, destroy) - 16usize];
    ["Offset of field: gd_drafter::activate"]
        [::core::mem::offset_of!(gd_drafter, activate) - 24usize];
    ["Offset of field: gd_drafter::deactivate"]
        [::core::mem::offset_of!(gd_drafter, deactivate) - 32usize];
    ["Offset of field: gd_drafter::after_prefill"]
        [::core::mem::offset_of!(gd_drafter, after_prefill) - 40usize];
    ["Offset of field: gd_drafter::guess"][::core::mem::offset_of!(gd_drafter, guess) - 48usize];
    ["Offset of field: gd_drafter::end"][::core::mem::offset_of!(gd_drafter, end) - 56usize];
    ["Offset of field: gd_drafter::cost"][::core::mem::offset_of!(gd_drafter, cost) - 64usize];
    ["Offset of field: gd_drafter::get_extension"]
        [::core::mem::offset_of!(gd_drafter, get_extension) - 72usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_option {
    pub name: gd_str,
    pub value: gd_str,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_option"][::core::mem::size_of::<gd_option>() - 32usize];
    ["Alignment of gd_option"][::core::mem::align_of::<gd_option>() - 8usize];
    ["Offset of field: gd_option::name"][::core::mem::offset_of!(gd_option, name) - 0usize];
    ["Offset of field: gd_option::value"][::core::mem::offset_of!(gd_option, value) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gd_library {
    pub struct_size: usize,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub manifest: *const ::core::ffi::c_char,
    pub create: ::core::option::Option<
        unsafe extern "C" fn(
            host: *const gd_host,
            options: *const gd_option,
            n_options: usize,
            out: *mut *mut gd_drafter,
        ) -> gd_status,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gd_library"][::core::mem::size_of::<gd_library>() - 32usize];
    ["Alignment of gd_library"][::core::mem::align_of::<gd_library>() - 8usize];
    ["Offset of field: gd_library::struct_size"]
        [::core::mem::offset_of!(gd_library, struct_size) - 0usize];
    ["Offset of field: gd_library::abi_major"]
        [::core::mem::offset_of!(gd_library, abi_major) - 8usize];
    ["Offset of field: gd_library::abi_minor"]
        [::core::mem::offset_of!(gd_library, abi_minor) - 12usize];
    ["Offset of field: gd_library::manifest"]
        [::core::mem::offset_of!(gd_library, manifest) - 16usize];
    ["Offset of field: gd_library::create"][::core::mem::offset_of!(gd_library, create) - 24usize];
};
pub type gd_entry_fn = ::core::option::Option<unsafe extern "C" fn() -> *const gd_library>;
