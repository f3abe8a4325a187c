//! Rotary frequencies.

use super::{ModelConfig, RopeScaling};
use std::f64::consts::TAU;

impl ModelConfig {
    /// The `head_dim / 2` angles by which one position turns each pair of values, scaling included.
    ///
    /// Every step is rounded to `f32` where transformers' `modeling_rope_utils.py` rounds, as its
    /// numbers are the ones that the models were trained with.
    pub fn rope_inv_freq(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                // The power itself in f64: rounded once, it is the nearest f32.
                let power = f64::from(self.rope_theta as f32).powf(exponent.into()) as f32;
                let frequency = self.rope_scaling.apply(1.0 / power);
                match &self.rope_freq_factors {
                    Some(factors) => frequency / factors[i],
                    None => frequency,
                }
            })
            .collect()
    }
}

impl RopeScaling {
    fn apply(self, frequency: f32) -> f32 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            // `_compute_llama3_parameters`
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let wavelength = TAU as f32 / frequency;
                let low_wavelength = (original_context / low_freq_factor) as f32;
                let high_wavelength = (original_context / high_freq_factor) as f32;
                if wavelength > low_wavelength {
                    return frequency / factor as f32;
                }
                if wavelength < high_wavelength {
                    return frequency;
                }
                let smooth = (original_context as f32 / wavelength - low_freq_factor as f32)
                    / (high_freq_factor - low_freq_factor) as f32;
                (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Family;

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
            eos_tokens: Vec::new(),
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

    /// Bits of `LlamaRotaryEmbedding(config).inv_freq` in transformers 5.23. torch's vector `pow` is
    /// not always the nearest f32, hence the one unit in the last place.
    #[track_caller]
    fn assert_same(config: &ModelConfig, expected: &[u32]) {
        let found: Vec<u32> = config.rope_inv_freq().into_iter().map(f32::to_bits).collect();
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(found.abs_diff(*expected) <= 1, "{i}: {found:#x}, transformers {expected:#x}");
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

    /// llama.cpp divides by the factors that its converter computed from the same formula.
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
}
