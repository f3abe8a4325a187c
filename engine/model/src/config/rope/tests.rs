//! Comparison of the frequencies with transformers.

use super::*;
use crate::config::Family;
use crate::end_tokens::EndTokens;

fn config(head_dim: usize, rope_theta: f64, rope_scaling: RopeScaling) -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        n_layers: 1,
        hidden_size: head_dim,
        n_heads: 1,
        n_kv_heads: 1,
        head_dim,
        intermediate_size: 1,
        vocab_size: 1,
        max_context: 131_072,
        rms_norm_eps: 1e-5,
        rope_theta,
        rope_scaling,
        rope_freq_factors: None,
        sliding_window: None,
        qkv_bias: false,
        qk_norm: false,
        tie_embeddings: false,
        end_tokens: EndTokens::default(),
    }
}

fn llama3(factor: f64) -> RopeScaling {
    RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    }
}

/// `expected` has the bits of `LlamaRotaryEmbedding(config).inv_freq` in transformers 5.23. torch's
/// vector `pow` is not always the nearest f32, hence the tolerance of one unit in the last place.
#[track_caller]
fn assert_same(config: &ModelConfig, expected: &[u32]) {
    assert_close(config, expected, 1);
}

#[track_caller]
fn assert_close(config: &ModelConfig, expected: &[u32], units: u32) {
    let found: Vec<u32> = config.rope_inv_freq().into_iter().map(f32::to_bits).collect();
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found.abs_diff(*expected) <= units, "{i}: {found:#x}, transformers {expected:#x}");
    }
}

#[test]
fn plain_frequencies_are_those_of_transformers() {
    assert_same(&config(64, 100_000.0, RopeScaling::None), &THETA_1E5);
}

#[test]
fn linear_scaling_is_that_of_transformers() {
    assert_same(&config(64, 10_000.0, RopeScaling::Linear { factor: 4.0 }), &LINEAR_4);
}

#[test]
fn llama_3_scaling_is_that_of_transformers() {
    assert_same(&config(128, 500_000.0, llama3(8.0)), &LLAMA_3_1_8B);
    assert_same(&config(64, 500_000.0, llama3(32.0)), &LLAMA_3_2_1B);
}

fn yarn(factor: f64, original_context: f64) -> Yarn {
    Yarn {
        factor,
        original_context,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: attention_factor(factor, 1.0),
    }
}

/// Qwen2.5 7B with the scaling that its model card recommends.
#[test]
fn yarn_is_that_of_transformers() {
    let qwen = config(128, 1e6, RopeScaling::Yarn(yarn(4.0, 32_768.0)));
    assert_close(&qwen, &YARN_QWEN_2_5, 2);
    assert_eq!(qwen.rope_attention_scale(), 1.138_629_4);
    // Another ramp gives other frequencies.
    let steep = Yarn { beta_fast: 16.0, ..yarn(4.0, 32_768.0) };
    let other = config(128, 1e6, RopeScaling::Yarn(steep)).rope_inv_freq();
    assert!(other.iter().zip(YARN_QWEN_2_5).any(|(f, bits)| f.to_bits().abs_diff(bits) > 1000));
}

/// llama.cpp takes `max(0.001, …)` and transformers tests `min == max`, so neither divides by zero.
#[test]
fn a_ramp_without_length_is_a_step() {
    let none = Yarn { beta_fast: 1.0, truncate: false, ..yarn(4.0, 4096.0) };
    let found = config(64, 1e4, RopeScaling::Yarn(none)).rope_inv_freq();
    let plain = config(64, 1e4, RopeScaling::None).rope_inv_freq();
    let shares: Vec<f32> = found.iter().zip(&plain).map(|(found, plain)| found / plain).collect();
    assert!(shares.iter().all(|share| [1.0, 0.25].contains(share)), "{shares:?}");
    assert!(shares.is_sorted_by(|a, b| a >= b) && shares[0] == 1.0 && shares[31] == 0.25);
}

/// transformers computes the base in f32, and the power passes its rounding error on.
#[test]
fn dynamic_is_that_of_transformers_at_the_context_it_is_opened_with() {
    let dynamic = RopeScaling::Dynamic { factor: 2.0, original_context: 4096.0 };
    let at = |max_context| ModelConfig { max_context, ..config(64, 1e4, dynamic) };
    assert_close(&at(8192), &DYNAMIC_2_AT_8192, 4);
    let plain = config(64, 1e4, RopeScaling::None).rope_inv_freq();
    assert_eq!(at(4096).rope_inv_freq(), plain);
    assert_eq!(at(100).rope_inv_freq(), plain);
    assert_ne!(at(4097).rope_inv_freq(), plain);
}

/// llama.cpp divides by factors that its converter computes with the formula of the scaling.
#[test]
fn factors_divide() {
    let mut factored = config(4, 10_000.0, RopeScaling::None);
    factored.rope_freq_factors = Some(vec![1.0, 8.0]);
    assert_eq!(factored.rope_inv_freq(), [1.0, 0.01 / 8.0]);
}

#[rustfmt::skip]
const THETA_1E5: [u32; 32] = [
    0x3f80_0000, 0x3f32_a506, 0x3ef9_53cf, 0x3ead_fcff, 0x3e72_d423, 0x3e29_7409, 0x3dec_7fd6,
    0x3da5_0956, 0x3d66_55c2, 0x3d20_bc1d, 0x3ce0_54d2, 0x3c9c_8b97, 0x3c5a_7bf2, 0x3c18_7705,
    0x3bd4_ca15, 0x3b94_7dae, 0x3b4f_3e38, 0x3b10_9edb, 0x3ac9_d75c, 0x3a8c_d9db, 0x3a44_948c,
    0x3a09_2e02, 0x39bf_74d7, 0x3985_9aa9, 0x393a_7753, 0x3902_1f2b, 0x38b5_9b1b, 0x387d_75d4,
    0x3830_df52, 0x37f6_da96, 0x37ac_431d, 0x3770_6b6d,
];
#[rustfmt::skip]
const LINEAR_4: [u32; 32] = [
    0x3e80_0000, 0x3e3f_f911, 0x3e0f_f59a, 0x3dd7_e89b, 0x3da1_e89b, 0x3d72_d423, 0x3d36_1887,
    0x3d08_8d77, 0x3ccc_cccd, 0x3c99_940d, 0x3c66_55c2, 0x3c2c_ba15, 0x3c01_86e3, 0x3bc2_434f,
    0x3b91_ad39, 0x3b5a_7bf2, 0x3b23_d70a, 0x3af5_b9b0, 0x3ab8_449c, 0x3a8a_2e77, 0x3a4f_3e38,
    0x3a1b_690d, 0x39e9_1528, 0x39ae_c98e, 0x3983_126f, 0x3944_948c, 0x3913_6a16, 0x38dd_1725,
    0x38a5_cb60, 0x3878_a815, 0x383a_7753, 0x380b_d472,
];
#[rustfmt::skip]
const LLAMA_3_1_8B: [u32; 64] = [
    0x3f80_0000, 0x3f50_8ac1, 0x3f29_e1c6, 0x3f0a_6384, 0x3ee1_77bc, 0x3eb7_ab7d, 0x3e95_9ee3,
    0x3e73_c461, 0x3e46_93b0, 0x3e21_c3a0, 0x3e03_c6a0, 0x3dd6_b19c, 0x3dae_e4ad, 0x3d8e_7898,
    0x3d68_1e67, 0x3d3d_1684, 0x3d1a_08c8, 0x3cfa_f53f, 0x3ccc_6f49, 0x3ca6_8939, 0x3c87_a9c3,
    0x3c5d_06ec, 0x3c34_0d6d, 0x3c12_ac7f, 0x3bee_f74f, 0x3bc2_aa76, 0x3b9e_9402, 0x3b81_2e35,
    0x3b52_7720, 0x3b0d_fd06, 0x3ab3_d11d, 0x3a60_979e, 0x3a09_95d2, 0x39a3_f108, 0x393b_2dd2,
    0x38c8_6886, 0x38a3_418d, 0x3884_fdbf, 0x3858_ac81, 0x3830_8199, 0x380f_c8f8, 0x37ea_426f,
    0x37be_d4f4, 0x379b_7475, 0x377d_45c3, 0x374e_51f5, 0x3728_126b, 0x3708_ea0f, 0x36df_10c4,
    0x36b5_b687, 0x3694_06cb, 0x3671_2b80, 0x3644_7610, 0x3620_0a69, 0x3602_5f34, 0x35d4_6808,
    0x35ad_07a7, 0x358c_f400, 0x3565_a54d, 0x353b_12c7, 0x3518_64a7, 0x34f8_48c2, 0x34ca_41b0,
    0x34a4_c2ff,
];
#[rustfmt::skip]
const LLAMA_3_2_1B: [u32; 32] = [
    0x3f80_0000, 0x3f29_e1c6, 0x3ee1_77bc, 0x3e95_9ee3, 0x3e46_93b0, 0x3e03_c6a0, 0x3dae_e4ad,
    0x3d68_1e67, 0x3d1a_08c8, 0x3ccc_6f49, 0x3c87_a9c3, 0x3c34_0d6d, 0x3bee_f74f, 0x3b9e_9402,
    0x3b52_7720, 0x3aa9_279b, 0x39e1_3620, 0x38cb_98f7, 0x37a3_418d, 0x3758_ac81, 0x370f_c8f8,
    0x36be_d4f4, 0x367d_45c3, 0x3628_126b, 0x35df_10c4, 0x3594_06cb, 0x3544_7610, 0x3502_5f34,
    0x34ad_07a7, 0x3465_a54d, 0x3418_64a7, 0x33ca_41b0,
];
#[rustfmt::skip]
const YARN_QWEN_2_5: [u32; 64] = [
    0x3f80_0000, 0x3f4e_4bad, 0x3f26_3de0, 0x3f05_f6ef, 0x3ed7_e89b, 0x3ead_fcff, 0x3e8c_3504,
    0x3e61_f835, 0x3e36_1887, 0x3e12_bd91, 0x3dec_7fd6, 0x3dbe_94c6, 0x3d99_940d, 0x3d77_8513,
    0x3d47_763f, 0x3d20_bc1d, 0x3d01_86e3, 0x3cd0_c1a8, 0x3ca8_398b, 0x3c87_9008, 0x3c5a_7bf2,
    0x3c30_1052, 0x3c0d_e12d, 0x3be4_aa46, 0x3bb0_2377, 0x3b87_6388, 0x3b4f_a550, 0x3b1e_d248,
    0x3af2_41df, 0x3ab8_2bc0, 0x3a8b_8207, 0x3a52_7db8, 0x3a1e_0eb2, 0x39ec_1968, 0x39af_3d02,
    0x3981_1c3e, 0x393c_93be, 0x3908_3e38, 0x38c2_3e9a, 0x3888_1d0a, 0x383a_7753, 0x3816_4324,
    0x37f2_2ce2, 0x37c3_27b5, 0x379d_43a4, 0x377d_75d4, 0x374c_3fbe, 0x3724_97ab, 0x3704_a2b2,
    0x36d5_c441, 0x36ac_431d, 0x368a_d0ed, 0x365f_ba4f, 0x3634_4a0e, 0x3611_48e3, 0x35ea_2732,
    0x35bc_b0c1, 0x3598_0e02, 0x3575_1070, 0x3545_7bab, 0x351f_23e4, 0x3500_3dec, 0x34ce_af79,
    0x34a6_8e4c,
];
#[rustfmt::skip]
const DYNAMIC_2_AT_8192: [u32; 32] = [
    0x3f80_0000, 0x3f39_49e8, 0x3f06_1be8, 0x3ec2_21c5, 0x3e8c_8274, 0x3e4b_65ad, 0x3e13_3733,
    0x3dd5_1aca, 0x3d9a_3de2, 0x3d5f_4681, 0x3d21_9a69, 0x3ce9_ee7c, 0x3ca9_50e1, 0x3c75_18aa,
    0x3c31_6596, 0x3c00_65a0, 0x3bb9_dd06, 0x3b86_8663, 0x3b42_bbe7, 0x3b0c_f203, 0x3acc_072b,
    0x3a93_ac16, 0x3a55_c3fb, 0x3a1a_b859, 0x39df_f7c6, 0x39a2_1ab8, 0x396a_a837, 0x3929_d750,
    0x38f5_db43, 0x38b1_f26f, 0x3880_cb92, 0x383a_7097,
];
