//! Values that a drafter may keep: handles, facts about a model, layer masks.

use galley_drafter_abi::{gd_layers, gd_matcher, gd_model, gd_view};

use crate::error::{Error, Result};

/// A model that the host can run. The default is the target.
#[derive(Clone, Copy, Debug)]
pub struct Model(pub(crate) gd_model);

/// A view: the cached tokens that a pass attends to. The default is all of them.
#[derive(Clone, Copy, Debug)]
pub struct View(pub(crate) gd_view);

/// A layer mask: the sublayers that a pass runs. The default is all of them.
#[derive(Clone, Copy, Debug)]
pub struct Layers(pub(crate) gd_layers);

/// A matcher: how a suffix index is searched. Made by [`Control::matcher`](crate::Control::matcher).
#[derive(Clone, Copy, Debug)]
pub struct Matcher(pub(crate) gd_matcher);

impl Model {
    /// The target model.
    pub const TARGET: Self = Self(gd_model { id: 0 });
}

impl View {
    /// The whole cache.
    pub const WHOLE: Self = Self(gd_view { id: 0 });
}

impl Layers {
    /// All layers.
    pub const ALL: Self = Self(gd_layers { id: 0 });
}

impl Default for Model {
    fn default() -> Self {
        Self::TARGET
    }
}

impl Default for View {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::ALL
    }
}

/// A chain, which guesses token after token. The default is the target with its whole cache and all
/// layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    /// The model that guesses.
    pub model: Model,
    /// The tokens that it attends to: a view of the same model.
    pub view: View,
    /// The sublayers that it runs: a mask of the same model.
    pub layers: Layers,
}

/// Facts about a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelInfo {
    /// Layers, each an attention and an MLP sublayer.
    pub n_layers: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// Elements of the residual stream.
    pub hidden_size: u32,
    /// Tokens of the vocabulary.
    pub vocab_size: u32,
    /// Tokens of one block of its KV cache.
    pub block_size_tokens: u32,
    /// Tokens that the model can attend to.
    pub max_context_tokens: u64,
    /// Number of parameters.
    pub n_parameters: u64,
}

impl ModelInfo {
    /// Elements that one token takes in the KV cache.
    pub fn kv_per_token(&self) -> f64 {
        2.0 * f64::from(self.n_layers) * f64::from(self.n_kv_heads) * f64::from(self.head_dim)
    }

    /// Share of the weights that a pass under a mask reads. An estimate: an input embedding that is
    /// not tied to the output head counts as part of the layers.
    pub fn weights_read(&self, mask: &LayerMask) -> f64 {
        let all = self.n_parameters as f64;
        let hidden = f64::from(self.hidden_size);
        let head = f64::from(self.vocab_size) * hidden;
        let layer = ((all - head) / f64::from(self.n_layers.max(1))).max(0.0);
        let heads = 2.0 * (f64::from(self.n_heads) + f64::from(self.n_kv_heads));
        let attention = (heads * f64::from(self.head_dim) * hidden).min(layer);
        let count = |on: &[u8]| on.iter().filter(|on| **on != 0).count() as f64;
        let read =
            head + count(&mask.attention) * attention + count(&mask.mlp) * (layer - attention);
        if all > 0.0 { (read / all).min(1.0) } else { 1.0 }
    }
}

/// The sublayers that run. The final norm and the output head always run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMask {
    pub(crate) attention: Vec<u8>,
    pub(crate) mlp: Vec<u8>,
}

impl LayerMask {
    /// Every sublayer of a model with `n_layers` layers.
    pub fn all(n_layers: u32) -> Self {
        let on = vec![1; n_layers as usize];
        Self { attention: on.clone(), mlp: on }
    }

    /// The first `n_kept` layers, then the output head.
    pub fn exit_after(n_kept: u32, n_layers: u32) -> Self {
        let on: Vec<u8> = (0..n_layers).map(|layer| u8::from(layer < n_kept)).collect();
        Self { attention: on.clone(), mlp: on }
    }

    /// Every sublayer but the listed ones.
    ///
    /// # Errors
    ///
    /// If the model has no such layer.
    pub fn skipping(attention: &[u32], mlp: &[u32], n_layers: u32) -> Result<Self> {
        let mut mask = Self::all(n_layers);
        for (skipped, on) in [(attention, &mut mask.attention), (mlp, &mut mask.mlp)] {
            for &layer in skipped {
                *on.get_mut(layer as usize).ok_or_else(|| {
                    Error::invalid(format!(
                        "layer {layer} cannot be skipped: the model has layers 0 to {}",
                        n_layers.saturating_sub(1)
                    ))
                })? = 0;
            }
        }
        Ok(mask)
    }

    /// Turns the attention sublayer of a layer on or off. Does not allocate, so a step may call it.
    ///
    /// # Panics
    ///
    /// If the model has no such layer.
    pub fn set_attention(&mut self, layer: u32, runs: bool) {
        self.attention[layer as usize] = u8::from(runs);
    }

    /// Turns the MLP sublayer of a layer on or off. Does not allocate, so a step may call it.
    ///
    /// # Panics
    ///
    /// If the model has no such layer.
    pub fn set_mlp(&mut self, layer: u32, runs: bool) {
        self.mlp[layer as usize] = u8::from(runs);
    }

    pub(crate) fn n_layers(&self) -> u32 {
        u32::try_from(self.attention.len()).expect("made from a u32")
    }

    /// Whether the attention sublayer of a layer runs.
    pub fn runs_attention(&self, layer: u32) -> bool {
        self.attention.get(layer as usize).is_some_and(|on| *on != 0)
    }

    /// Whether the MLP sublayer of a layer runs.
    pub fn runs_mlp(&self, layer: u32) -> bool {
        self.mlp.get(layer as usize).is_some_and(|on| *on != 0)
    }

    /// Share of the attention sublayers that run: also the share of the KV cache that is read.
    pub fn attention_share(&self) -> f64 {
        let on = self.attention.iter().filter(|on| **on != 0).count();
        on as f64 / self.attention.len().max(1) as f64
    }
}
