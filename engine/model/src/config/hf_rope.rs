//! Rotary embeddings in a `config.json`: base and scaling.

use super::fields::JsonFields;
use super::{MAX_CONTEXT, RopeScaling, Yarn, rope::attention_factor};
use crate::{ModelError, Result};

/// Rotary embeddings as a `config.json` describes them.
pub(super) struct RopeSettings {
    pub(super) theta: f64,
    pub(super) scaling: RopeScaling,
    /// Longest sequence, tokens: `max_position_embeddings`, or more if the scaling extends it.
    pub(super) max_context: usize,
}

/// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`. `max_positions` is
/// the model's `max_position_embeddings`. As in transformers, `rope_scaling` overrides
/// `rope_parameters`, because users add it.
pub(super) fn read(fields: &JsonFields<'_>, max_positions: usize) -> Result<RopeSettings> {
    refuse_partial(fields)?;
    let top_level_theta = fields.number("rope_theta")?;
    let new = fields.object("rope_parameters")?;
    let old = fields.object("rope_scaling")?.filter(|old| !old.object.is_empty());
    let mut theta = None;
    for parameters in [&old, &new].into_iter().flatten() {
        refuse_partial(parameters)?;
        theta = theta.or(parameters.number("rope_theta")?);
    }
    let theta = theta.or(top_level_theta).unwrap_or(DEFAULT_THETA);
    let scaling = match old.or(new) {
        Some(parameters) => scaling(fields, &parameters, max_positions)?,
        None => RopeScaling::None,
    };
    let max_context = match scaling {
        RopeScaling::Yarn(Yarn { factor, original_context, .. })
        | RopeScaling::Dynamic { factor, original_context } => {
            // `max_position_embeddings` may include the factor already.
            stretched(factor, original_context).max(max_positions)
        }
        // With these, the file's length is the length of the training sequences.
        RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => {
            max_positions
        }
    };
    Ok(RopeSettings { theta, scaling, max_context })
}

/// `factor · original`, at most the largest position. NaN and negative numbers give 0.
pub(super) fn stretched(factor: f64, original: f64) -> usize {
    ((factor * original) as usize).min(MAX_CONTEXT)
}

fn scaling(
    fields: &JsonFields<'_>,
    parameters: &JsonFields<'_>,
    max_positions: usize,
) -> Result<RopeScaling> {
    let kind = match parameters.text("rope_type")? {
        Some(kind) => Some(kind),
        None => parameters.text("type")?,
    };
    // As in transformers, a field of the whole file overrides the field of the object.
    let original_context = || -> Result<f64> {
        let of_file = fields.number(ORIGINAL_CONTEXT)?;
        let original = of_file.or(parameters.number(ORIGINAL_CONTEXT)?);
        Ok(original.unwrap_or(max_positions as f64))
    };
    Ok(match kind {
        None if parameters.object.values().any(serde_json::Value::is_object) => {
            let reason = "rope parameters that differ between layers";
            return Err(ModelError::unsupported(fields.path, reason));
        }
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: parameters.required_number("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: parameters.required_number("factor")?,
            low_freq_factor: parameters.required_number("low_freq_factor")?,
            high_freq_factor: parameters.required_number("high_freq_factor")?,
            original_context: original_context()?,
        },
        Some("yarn") => RopeScaling::Yarn(yarn(parameters, original_context()?, max_positions)?),
        Some("dynamic") => RopeScaling::Dynamic {
            factor: parameters.required_number("factor")?,
            original_context: max_positions as f64,
        },
        Some(name @ ("longrope" | "su")) => {
            let reason = format!(
                "{} {name}: two sets of frequencies, one for short and one for long sequences, which no model of \
                 Galley's families has; supported are {SUPPORTED}",
                parameters.name()
            );
            return Err(ModelError::unsupported(fields.path, reason));
        }
        Some(other) => {
            let reason = format!("{} {other}; supported are {SUPPORTED}", parameters.name());
            return Err(ModelError::unsupported(fields.path, reason));
        }
    })
}

fn yarn(parameters: &JsonFields<'_>, original_context: f64, max_positions: usize) -> Result<Yarn> {
    // In transformers, zero counts as absent.
    let number = |name| Ok::<_, ModelError>(parameters.number(name)?.filter(|n| *n != 0.0));
    let factor = match parameters.number("factor")? {
        Some(factor) => factor,
        // DeepSeek writes `null`: the factor then is the ratio of the two lengths.
        None if parameters.object.contains_key("factor") => max_positions as f64 / original_context,
        None => return Err(parameters.missing("factor")),
    };
    let (mscale, mscale_all_dim) = (number("mscale")?, number("mscale_all_dim")?);
    Ok(Yarn {
        factor,
        original_context,
        beta_fast: number("beta_fast")?.unwrap_or(BETA_FAST),
        beta_slow: number("beta_slow")?.unwrap_or(BETA_SLOW),
        truncate: parameters.flag("truncate")?.unwrap_or(true),
        attention_factor: match (parameters.number("attention_factor")?, mscale, mscale_all_dim) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all)) => {
                attention_factor(factor, mscale) / attention_factor(factor, all)
            }
            (None, ..) => attention_factor(factor, 1.0),
        },
    })
}

fn refuse_partial(fields: &JsonFields<'_>) -> Result<()> {
    match fields.number("partial_rotary_factor")? {
        None => Ok(()),
        Some(1.0) => Ok(()),
        Some(factor) => Err(ModelError::unsupported(
            fields.path,
            format!("partial_rotary_factor {factor}; only 1 is supported"),
        )),
    }
}

const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";
const SUPPORTED: &str = "default, linear, llama3, yarn and dynamic";
/// Default base of transformers.
const DEFAULT_THETA: f64 = 10_000.0;
/// Default of transformers and llama.cpp, after the YaRN paper.
pub(super) const BETA_FAST: f64 = 32.0;
/// Default of transformers and llama.cpp, after the YaRN paper.
pub(super) const BETA_SLOW: f64 = 1.0;
