//! The logits of every token of given windows, for comparisons with other engines (`peers/kl_divergence.py`).
//!
//! `cargo bench -p galley-benches --bench logits -- --model FILE [--weights native] [--dtype bf16]
//! [--cpu avx2] [--threads 2] [--window 512]`
//!
//! All numbers on the pipes are little-endian and 32 bits wide. Standard output begins with the size
//! of the vocabulary. Then, for each window, standard input has the number of its tokens and their
//! ids, and standard output one row of f32 logits for each token. The end of the input ends the
//! program.

use galley_backend::cpu::{CpuConfig, InstructionSet};
use galley_backend::{
    Batch, Formats, InputToken, KvView, LayerMask, OperandFormat, SeqSpan, WeightFormat,
};
use galley_benches::flags;
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, LoadOptions, ModelIndex, load};
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::PathBuf;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let config = CpuConfig::default()
        .formats(Formats::new(arguments.dtype, arguments.weights)?)
        .instruction_set(arguments.cpu)
        .n_threads(arguments.n_threads);
    let options = LoadOptions::new(BLOCK, arguments.window.div_ceil(BLOCK))
        .max_rows(ROWS)
        .max_logit_rows(ROWS);
    let mut model = load(&checkpoint, config, options, &mut |_, _| {})?;
    eprintln!("{}, {}", arguments.model.display(), model.device());
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let vocab_size = u32::try_from(model.target().config.vocab_size)?;
    output.write_all(&vocab_size.to_le_bytes())?;
    output.flush()?;
    while let Some(n_tokens) = read_number(&mut input)? {
        let n_tokens = n_tokens as usize;
        if n_tokens > arguments.window {
            let window = arguments.window;
            return Err(
                format!("a window of {n_tokens} tokens: at most {window} (--window)").into()
            );
        }
        let mut ids = Vec::with_capacity(n_tokens);
        for _ in 0..n_tokens {
            let id = read_number(&mut input)?.ok_or("the input ends within a window")?;
            if id >= vocab_size {
                return Err(format!("token {id}: the vocabulary has {vocab_size}").into());
            }
            ids.push(InputToken::known(id));
        }
        write_logits(model.as_mut(), &ids, &mut output)?;
    }
    Ok(())
}

/// Tokens in a block.
const BLOCK: usize = 16;
/// Most rows of a forward. Larger forwards are little faster, and their logits take much memory.
const ROWS: usize = 128;

/// Writes the logits of every token of a window that starts at position 0.
fn write_logits(
    model: &mut dyn LanguageModel,
    tokens: &[InputToken],
    output: &mut impl Write,
) -> Result<()> {
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK) as u32).collect();
    let mut bytes = Vec::new();
    for start in (0..tokens.len()).step_by(ROWS) {
        let n_rows = ROWS.min(tokens.len() - start);
        let seqs = [SeqSpan {
            first_row: 0,
            n_rows,
            block_table: &blocks[..(start + n_rows).div_ceil(BLOCK)],
            writes_kv: true,
            view: KvView::default(),
        }];
        let positions: Vec<u32> = (start as u32..(start + n_rows) as u32).collect();
        let rows: Vec<u32> = (0..n_rows as u32).collect();
        let batch = Batch {
            tokens: &tokens[start..][..n_rows],
            positions: &positions,
            seqs: &seqs,
            logit_rows: &rows,
        };
        model.forward(ModelIndex::TARGET, &batch, &LayerMask::All, &mut [])?;
        bytes.clear();
        bytes.extend(model.read_logits(ModelIndex::TARGET)?.iter().flat_map(|l| l.to_le_bytes()));
        output.write_all(&bytes)?;
        output.flush()?;
    }
    Ok(())
}

/// The next number of the input; None at its end.
fn read_number(input: &mut impl Read) -> io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// The command line.
struct Arguments {
    model: PathBuf,
    /// None: the weights of `dtype`.
    weights: Option<WeightFormat>,
    dtype: OperandFormat,
    cpu: Option<InstructionSet>,
    n_threads: Option<usize>,
    /// Most tokens of a window.
    window: usize,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Arguments {
            model: PathBuf::new(),
            weights: None,
            dtype: OperandFormat::Bf16,
            cpu: None,
            n_threads: None,
            window: 512,
        };
        for flag in flags(words) {
            let (word, value) = flag?;
            match word.as_str() {
                "--model" => arguments.model = value.into(),
                "--weights" => arguments.weights = Some(value.parse()?),
                "--dtype" => arguments.dtype = value.parse()?,
                "--cpu" => arguments.cpu = Some(value.parse()?),
                "--threads" => arguments.n_threads = Some(value.parse()?),
                "--window" => arguments.window = value.parse()?,
                _ => return Err(format!("{word} is unknown").into()),
            }
        }
        if arguments.model.as_os_str().is_empty() || arguments.window == 0 {
            return Err("a model (--model FILE), and windows of at least one token".into());
        }
        Ok(arguments)
    }
}
