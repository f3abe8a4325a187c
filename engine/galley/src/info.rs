//! `galley info`: a model's architecture, its size and the memory that it needs.

mod stored;

use crate::args::InfoArgs;
use crate::console;
use crate::huge_pages::HugePages;
use crate::load::open;
use anyhow::{Result, bail};
use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, KvFormat};
use galley_engine::{ModelFiles, SUFFIX_BYTES, SUFFIX_BYTES_A_TOKEN, SUFFIX_BYTES_OF_A_SEQUENCE};
use galley_model::config::{RopeScaling, Yarn};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use stored::Stored;

/// Runs the command.
pub(crate) fn info(args: &InfoArgs) -> Result<()> {
    let Some(model) = args.model.as_ref().or(args.model_flag.as_ref()) else {
        bail!("no model: galley info MODEL");
    };
    let mut stdout = console::stdout();
    let facts = Facts::of(open(model)?);
    match args.json {
        true => writeln!(stdout, "{:#}", facts.json())?,
        false => facts.print(&mut stdout)?,
    }
    Ok(())
}

/// A model, and this machine as far as it concerns the model.
struct Facts {
    files: ModelFiles,
    stored: Stored,
    kv_bytes_per_token: usize,
    /// Each end token with its spelling and its source.
    end_tokens: Vec<(u32, String, String)>,
    huge_pages: Option<HugePages>,
    fingerprint: String,
}

impl Facts {
    fn of(files: ModelFiles) -> Self {
        let end_tokens = files.end_tokens();
        let spelling = |id| files.tokenizer.id_to_token(id).unwrap_or_default();
        let end_tokens =
            end_tokens.iter().map(|end| (end.id, spelling(end.id), end.source.to_string()));
        Self {
            stored: Stored::of(&files.checkpoint),
            kv_bytes_per_token: files.config().kv_values_per_token() * KvFormat::Bf16.bytes(),
            end_tokens: end_tokens.collect(),
            huge_pages: HugePages::of(Path::new("/")),
            fingerprint: files
                .cpu_fingerprint(InstructionSet::best(), Formats::default())
                .to_string(),
            files,
        }
    }

    fn json(&self) -> Value {
        let c = self.files.config();
        let end_tokens = self
            .end_tokens
            .iter()
            .map(|(id, spelling, source)| json!({"id": id, "token": spelling, "source": source}));
        json!({
            "path": self.files.path,
            "family": format!("{:?}", c.family),
            "parameters": c.parameters(),
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
            "end_tokens": end_tokens.collect::<Vec<_>>(),
            "has_chat_template": self.files.chat_template().is_ok(),
            "weight_types": self.stored.types_json(),
            "weight_bytes_file": self.stored.file_bytes,
            "weight_bytes_packed": self.stored.packed_bytes,
            "weight_bytes_bf16": c.parameters() * 2,
            "bytes_per_weight_file": self.stored.a_weight(self.stored.file_bytes),
            "bytes_per_weight_packed": self.stored.a_weight(self.stored.packed_bytes),
            "kv_bytes_per_token_bf16": self.kv_bytes_per_token,
            "suffix_bytes": SUFFIX_BYTES,
            "suffix_bytes_of_a_sequence": SUFFIX_BYTES_OF_A_SEQUENCE,
            "cpu": InstructionSet::best().name(),
            "huge_pages": self.huge_pages.as_ref().map(|pages| &pages.setting),
            "fingerprint": self.fingerprint,
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.files.path.display())?;
        self.print_model(out)?;
        self.stored.print(out)?;
        let c = self.files.config();
        let kv_bytes = self.kv_bytes_per_token;
        writeln!(
            out,
            "KV cache        {kv_bytes} bytes a token in bf16, {:.2} GiB for one full context",
            gib(kv_bytes * c.max_context)
        )?;
        writeln!(
            out,
            "suffix index    {} to {} bytes a token for ngram, at most {} MiB in all and {} MiB a sequence (--suffix-bytes)",
            SUFFIX_BYTES_A_TOKEN,
            2 * SUFFIX_BYTES_A_TOKEN,
            SUFFIX_BYTES >> 20,
            SUFFIX_BYTES_OF_A_SEQUENCE >> 20
        )?;
        let sets: Vec<_> = InstructionSet::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .map(InstructionSet::name)
            .collect();
        writeln!(out, "this CPU        {}", sets.join(", "))?;
        if let Some(pages) = &self.huge_pages {
            writeln!(out, "huge pages      {pages}")?;
        }
        writeln!(
            out,
            "fingerprint     {}: engines that say the same give the same bytes",
            self.fingerprint
        )
    }

    /// Prints the model's shape, and the ends of its answers.
    fn print_model(&self, out: &mut dyn Write) -> io::Result<()> {
        let c = self.files.config();
        let millions = c.parameters() as f64 / 1e6;
        writeln!(out, "family          {:?}, {millions:.1} M parameters", c.family)?;
        writeln!(
            out,
            "layers          {} of width {}, MLP {}",
            c.n_layers, c.hidden_size, c.intermediate_size
        )?;
        writeln!(
            out,
            "heads           {} query, {} KV, {} values each",
            c.n_heads, c.n_kv_heads, c.head_dim
        )?;
        let template = if self.files.chat_template().is_ok() { "with" } else { "without" };
        writeln!(out, "vocabulary      {}, {template} a chat template", c.vocab_size)?;
        writeln!(out, "context         {} tokens", c.max_context)?;
        if c.rope_scaling != RopeScaling::None {
            writeln!(out, "rotary scaling  {}", scaling(c.rope_scaling))?;
        }
        for (id, spelling, source) in &self.end_tokens {
            writeln!(out, "ends with       {spelling:?} ({id}): {source}")?;
        }
        if let Some(window) = c.sliding_window {
            writeln!(out, "sliding window  {window} tokens")?;
        }
        Ok(())
    }
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 30)
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
