//! `galley info`: a model's architecture, its size and the memory that it needs.

use crate::args::InfoArgs;
use crate::console;
use crate::load::open;
use anyhow::{Result, bail};
use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, KvFormat};
use galley_model::config::{RopeScaling, Yarn};
use serde_json::json;
use std::io::Write;

/// Runs the command.
pub(crate) fn info(args: &InfoArgs) -> Result<()> {
    let Some(model) = args.model.as_ref().or(args.model_flag.as_ref()) else {
        bail!("no model: galley info MODEL");
    };
    let mut stdout = console::stdout();
    let files = open(model)?;
    let c = files.config();
    let parameters = c.parameters();
    let kv_bytes = c.kv_values_per_token() * KvFormat::Bf16.bytes();
    let end_tokens: Vec<(u32, String, String)> = files
        .end_tokens()
        .iter()
        .map(|end| {
            let spelling = files.tokenizer.id_to_token(end.id).unwrap_or_default();
            (end.id, spelling, end.source.to_string())
        })
        .collect();
    let fingerprint = files.cpu_fingerprint(InstructionSet::best(), Formats::NATIVE);
    if args.json {
        let info = json!({
            "path": files.path,
            "family": format!("{:?}", c.family),
            "parameters": parameters,
            "n_layers": c.n_layers,
            "hidden_size": c.hidden_size,
            "n_heads": c.n_heads,
            "n_kv_heads": c.n_kv_heads,
            "head_dim": c.head_dim,
            "intermediate_size": c.intermediate_size,
            "vocab_size": c.vocab_size,
            "max_context": c.max_context,
            "sliding_window": c.sliding_window,
            "rope_theta": c.rope_theta,
            "tie_embeddings": c.tie_embeddings,
            "rope_scaling": scaling(c.rope_scaling),
            "end_tokens": end_tokens
                .iter()
                .map(|(id, spelling, source)| json!({"id": id, "token": spelling, "source": source}))
                .collect::<Vec<_>>(),
            "has_chat_template": files.chat_template().is_ok(),
            "weight_bytes_bf16": parameters * 2,
            "kv_bytes_per_token_bf16": kv_bytes,
            "cpu": InstructionSet::best().name(),
            "fingerprint": &*fingerprint,
        });
        writeln!(stdout, "{info:#}")?;
        return Ok(());
    }
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    writeln!(stdout, "{}", files.path.display())?;
    writeln!(
        stdout,
        "family          {:?}, {:.1} M parameters",
        c.family,
        parameters as f64 / 1e6
    )?;
    writeln!(
        stdout,
        "layers          {} of width {}, MLP {}",
        c.n_layers, c.hidden_size, c.intermediate_size
    )?;
    writeln!(
        stdout,
        "heads           {} query, {} KV, {} values each",
        c.n_heads, c.n_kv_heads, c.head_dim
    )?;
    let template = if files.chat_template().is_ok() { "with" } else { "without" };
    writeln!(stdout, "vocabulary      {}, {template} a chat template", c.vocab_size)?;
    writeln!(stdout, "context         {} tokens", c.max_context)?;
    if c.rope_scaling != RopeScaling::None {
        writeln!(stdout, "rotary scaling  {}", scaling(c.rope_scaling))?;
    }
    for (id, spelling, source) in &end_tokens {
        writeln!(stdout, "ends with       {spelling:?} ({id}): {source}")?;
    }
    if let Some(window) = c.sliding_window {
        writeln!(stdout, "sliding window  {window} tokens")?;
    }
    writeln!(stdout, "weights         {:.2} GiB in bf16", gib(parameters * 2))?;
    writeln!(
        stdout,
        "KV cache        {} bytes a token in bf16, {:.2} GiB for one full context",
        kv_bytes,
        gib(kv_bytes * c.max_context)
    )?;
    let sets: Vec<_> = InstructionSet::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .map(InstructionSet::name)
        .collect();
    writeln!(stdout, "this CPU        {}", sets.join(", "))?;
    writeln!(
        stdout,
        "fingerprint     {fingerprint}: engines that say the same give the same bytes"
    )?;
    Ok(())
}

/// A short description of a scaling of rotary frequencies.
fn scaling(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "none".into(),
        RopeScaling::Linear { factor } => format!("linear, by {factor}"),
        RopeScaling::Llama3 { factor, original_context, .. } => {
            format!("llama3, by {factor} over {original_context} tokens")
        }
        RopeScaling::Yarn(Yarn { factor, original_context, .. }) => {
            format!("yarn, by {factor} over {original_context} tokens")
        }
        RopeScaling::Dynamic { factor, original_context } => {
            format!("dynamic, by {factor} over {original_context} tokens")
        }
    }
}
