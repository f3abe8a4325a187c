//! Tests without a host: options, masks, costs.

use super::*;

struct Plain;

impl Drafter for Plain {
    fn activate(_: &Control<'_>, _: &Options, _: &Limits) -> Result<Self> {
        Ok(Plain)
    }

    fn guess(&mut self, _: &Step<'_>) -> Result<Guess> {
        Ok(Guess::Nothing)
    }
}

struct Adapting;

impl Drafter for Adapting {
    fn activate(_: &Control<'_>, _: &Options, _: &Limits) -> Result<Self> {
        Ok(Adapting)
    }

    fn guess(&mut self, _: &Step<'_>) -> Result<Guess> {
        Ok(Guess::Nothing)
    }
}

impl Feedback for Adapting {
    fn feedback(&mut self, _: impl Iterator<Item = Verified>) {}
}

#[test]
fn a_table_is_exported_for_drafters_that_implement_it() {
    use export::{NoFeedback as _, Tables};
    assert!(Tables::<Plain>::FEEDBACK.is_none());
    let table = Tables::<Adapting>::FEEDBACK.expect("it takes feedback");
    assert_eq!(table.struct_size, size_of_val(table));
    assert!(table.feedback.is_some());
}

fn options() -> Options {
    let pairs = [("sinks", "16"), ("budget", "many"), ("skip", "3,5 7"), ("mode", "exit")];
    Options(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}

#[test]
fn an_option_is_read_or_named_with_its_value() {
    assert_eq!(options().parse::<u32>("sinks"), Ok(16));
    let error = options().parse::<u32>("budget").unwrap_err().to_string();
    assert!(error.starts_with("option budget=\"many\": "), "{error}");
    assert!(options().parse::<u32>("other").unwrap_err().to_string().contains("other"));
    assert_eq!(options().list::<u32>("skip"), Ok(vec![3, 5, 7]));
    assert!(options().list::<u32>("mode").is_err());
    assert_eq!(options().choose("mode", &[("static", 0), ("exit", 1)]), Ok(1));
    assert!(options().choose("mode", &[("static", 0)]).unwrap_err().to_string().contains("static"));
}

#[test]
fn a_mask_knows_its_layers() {
    let mask = LayerMask::skipping(&[1], &[1, 2], 4).unwrap();
    assert!(!mask.runs_attention(1) && mask.runs_attention(2));
    assert!(!mask.runs_mlp(2) && mask.runs_mlp(3));
    assert_eq!(mask.attention_share(), 0.75);
    assert!(LayerMask::skipping(&[4], &[], 4).is_err());
    assert_eq!(LayerMask::exit_after(2, 3), LayerMask::skipping(&[2], &[2], 3).unwrap());
}

#[test]
fn a_budget_bounds_what_is_attended() {
    let at = |budget_tokens| CostAt { context_tokens: 1000, budget_tokens };
    assert_eq!(at(0).attended(512), 512.0);
    assert_eq!(at(256).attended(512), 256.0);
    assert_eq!(at(256).attended(0), 1000.0);
    assert_eq!(at(4096).attended(512), 1000.0);
}

#[test]
fn skipping_layers_reads_less() {
    let info = ModelInfo {
        n_layers: 4,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 4,
        hidden_size: 8,
        vocab_size: 10,
        block_size_tokens: 16,
        max_context_tokens: 64,
        n_parameters: 10 * 8 + 4 * (192 + 300),
    };
    assert_eq!(info.weights_read(&LayerMask::all(4)), 1.0);
    let none = info.weights_read(&LayerMask::exit_after(0, 4));
    assert_eq!(none, 80.0 / info.n_parameters as f64);
    let one = info.weights_read(&LayerMask::skipping(&[0], &[], 4).unwrap());
    assert_eq!(one, 1.0 - 192.0 / info.n_parameters as f64);
}
