//! Rotary frequencies.
//!
//! Loading a model fixes its frequencies, from its configuration and the context that it is opened
//! with ([`ModelConfig::max_context`]). They never depend on the current length of a sequence:
//! docs/numerics.md says why.

use super::{ModelConfig, RopeScaling, Yarn};
use std::f64::consts::TAU;

impl ModelConfig {
    /// The `head_dim / 2` angles by which one position turns each pair of values, scaling included.
    ///
    /// Every step is rounded to `f32` where transformers' `modeling_rope_utils.py` rounds, because
    /// models are trained with these numbers.
    pub fn rope_inv_freq(&self) -> Vec<f32> {
        let base = match self.rope_scaling {
            RopeScaling::Dynamic { factor, original_context } => {
                self.dynamic_base(factor, original_context)
            }
            _ => self.rope_theta,
        };
        let frequencies = (0..self.head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            // The power is computed in f64 and rounded once, to the nearest f32.
            let power = f64::from(base as f32).powf(exponent.into()) as f32;
            let frequency = match self.rope_scaling {
                RopeScaling::Yarn(yarn) => yarn.apply(power, i, self.head_dim, self.rope_theta),
                scaling => scaling.apply(1.0 / power),
            };
            match &self.rope_freq_factors {
                Some(factors) => frequency / factors[i],
                None => frequency,
            }
        });
        frequencies.collect()
    }

    /// The factor of the rotation's cosines and sines.
    pub fn rope_attention_scale(&self) -> f32 {
        match self.rope_scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor as f32,
            _ => 1.0,
        }
    }

    /// The base of `_compute_dynamic_ntk_parameters`, for a sequence that fills the context.
    fn dynamic_base(&self, factor: f64, original_context: f64) -> f64 {
        let context = (self.max_context as f64).max(original_context);
        let dim = self.head_dim as f64;
        let stretch = factor * context / original_context - (factor - 1.0);
        self.rope_theta * stretch.powf(dim / (dim - 2.0))
    }

    /// An error with the reason if the frequencies cannot be computed.
    pub(super) fn check_rope_scaling(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64| match (value as f32).is_normal() && value > 0.0 {
            true => Ok(()),
            false => Err(format!("{name} {value} is not a positive number")),
        };
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => positive("factor", factor)?,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", factor)?;
                positive("original_max_position_embeddings", original_context)?;
                positive("low_freq_factor", low_freq_factor)?;
                if !(high_freq_factor.is_finite() && low_freq_factor < high_freq_factor) {
                    return Err(format!(
                        "low_freq_factor {low_freq_factor} is not below high_freq_factor {high_freq_factor}"
                    ));
                }
            }
            RopeScaling::Yarn(yarn) => {
                positive("factor", yarn.factor)?;
                positive("original context", yarn.original_context)?;
                positive("beta_fast", yarn.beta_fast)?;
                positive("beta_slow", yarn.beta_slow)?;
                positive("attention_factor", yarn.attention_factor)?;
                if self.rope_theta <= 1.0 {
                    return Err(format!("yarn needs a base above 1, not {}", self.rope_theta));
                }
            }
            RopeScaling::Dynamic { factor, original_context } => {
                positive("factor", factor)?;
                positive("original context", original_context)?;
                if self.head_dim <= 2 {
                    return Err(format!(
                        "dynamic needs heads of more than {} values",
                        self.head_dim
                    ));
                }
                positive(
                    "the base for this context,",
                    self.dynamic_base(factor, original_context),
                )?;
            }
        }
        Ok(())
    }
}

impl RopeScaling {
    fn apply(self, frequency: f32) -> f32 {
        match self {
            // YaRN depends on the frequency's index; the base includes dynamic scaling.
            Self::None | Self::Yarn(_) | Self::Dynamic { .. } => frequency,
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

impl Yarn {
    /// Frequency `i` of `_compute_yarn_parameters`; `power` is the unscaled frequency's inverse.
    fn apply(self, power: f32, i: usize, head_dim: usize, base: f64) -> f32 {
        let (low, high) = self.ramp(head_dim, base);
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let (kept, divided) = (1.0 / power, 1.0 / (self.factor as f32 * power));
        let share = 1.0 - ramp;
        divided * (1.0 - share) + kept * share
    }

    /// The first and last frequency index of the ramp.
    fn ramp(self, head_dim: usize, base: f64) -> (f64, f64) {
        let dim = head_dim as f64;
        let turning = |rope_params: f64| {
            dim * (self.original_context / (rope_params * TAU)).ln() / (2.0 * base.ln())
        };
        let (mut low, mut high) = (turning(self.beta_fast), turning(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // Avoids 0 / 0.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}

/// YaRN's factor of queries and keys; `mscale` is the weight of the logarithm.
pub(super) fn attention_factor(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests;
