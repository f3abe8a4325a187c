//! `galley run --request`: answers the requests of a file, one line of JSON each.

use super::read_bytes;
use super::report::RunReport;
use crate::args::RunArgs;
use crate::console;
use crate::load::{Loaded, chat_template, open_for, start};
use anyhow::{Context, Result, bail};
use galley_api::limits::MAX_DRAFT_LENGTH;
use galley_api::{AnswerBody, ApiError, ModelTexts, RequestBody, parse_requests};
use galley_engine::{DraftConfig, ModelFiles, Prompt, Request, RequestHandle};
use galley_model::tokenizer::Tokenizer;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Answers the requests of a file. They run together, and their answers are printed in order.
pub(super) fn answer(args: &RunArgs, file: &Path) -> Result<()> {
    let bodies = read(file).context("--request")?;
    let files = open_for(&args.model)?;
    let requests = requests_of(bodies, args, &files)?;
    let n_prompt_tokens = requests.iter().map(n_prompt_tokens).sum();
    let loaded = load(args, &files, &requests)?;
    let n_requests = requests.len();
    let submit = |(index, request)| {
        loaded.engine.submit(request).map_err(|error| named(index, n_requests, error.into()))
    };
    let handles = requests.into_iter().enumerate().map(submit);
    let handles: Vec<RequestHandle> = handles.collect::<Result<_>>()?;
    let mut stdout = console::stdout();
    let (mut all, mut n_failed) = (Vec::new(), 0);
    for handle in handles {
        let submitted = handle.submitted().clone();
        match handle.collect() {
            Ok(answers) => {
                let body = AnswerBody::new(&submitted, &answers, loaded.engine.drafters());
                writeln!(stdout, "{}", body.to_json())?;
                all.extend(answers);
            }
            Err(error) => {
                writeln!(stdout, "{}", ApiError::from(error).to_json())?;
                n_failed += 1;
            }
        }
        stdout.flush()?;
    }
    // Shutting down waits for the last step, so that the statistics include it.
    loaded.engine.shutdown();
    if args.stats {
        RunReport::new(&loaded, &all, n_prompt_tokens).print_without_speeds();
    }
    match n_failed {
        0 => Ok(()),
        _ => bail!("{n_failed} of {n_requests} requests failed: their lines have the reason"),
    }
}

/// Reads and checks the requests, before the model is opened: opening takes a while.
fn read(file: &Path) -> Result<Vec<RequestBody>> {
    let json = match file == Path::new("-") {
        true => read_bytes(io::stdin().lock()),
        false => File::open(file).and_then(read_bytes),
    };
    let json = json.with_context(|| format!("cannot read {}", file.display()))?;
    let bodies = parse_requests(&json)?;
    match bodies.is_empty() {
        true => bail!("{} has no request", file.display()),
        false => Ok(bodies),
    }
}

/// The engine's requests, with their prompts as tokens.
fn requests_of(
    bodies: Vec<RequestBody>,
    args: &RunArgs,
    files: &ModelFiles,
) -> Result<Vec<Request>> {
    let mut texts = ModelTexts::of(files);
    if let Some(file) = args.chat_template.as_deref() {
        texts = texts.with_template(chat_template(files, Some(file))?);
    }
    let n_requests = bodies.len();
    let request = |(index, body): (usize, RequestBody)| {
        let request =
            body.into_request(&texts).and_then(|request| encode(request, &files.tokenizer));
        request.map_err(|error| named(index, n_requests, error))
    };
    bodies.into_iter().enumerate().map(request).collect()
}

/// An error that names the request, if there are several.
fn named(index: usize, n_requests: usize, error: ApiError) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    if n_requests == 1 {
        error
    } else {
        error.context(format!("request {} of {n_requests}", index + 1))
    }
}

/// The same request with a prompt of tokens: their number sizes the KV cache.
fn encode(request: Request, tokenizer: &Tokenizer) -> Result<Request, ApiError> {
    let tokens = match &request.prompt {
        Prompt::Text(text) => tokenizer.encode(text, true),
        Prompt::Rendered(text) => tokenizer.encode(text, false),
        Prompt::Tokens(_) => return Ok(request),
    };
    let invalid = galley_api::ErrorCode::InvalidRequest;
    let tokens =
        tokens.map_err(|error| ApiError::new(invalid, Some("prompt"), error.to_string()))?;
    Ok(request.prompt(Prompt::Tokens(tokens)))
}

fn n_prompt_tokens(request: &Request) -> usize {
    match &request.prompt {
        Prompt::Tokens(tokens) => tokens.len(),
        Prompt::Text(_) | Prompt::Rendered(_) => 0,
    }
}

/// Starts an engine with room for all requests at once, as far as the memory allows it.
fn load(args: &RunArgs, files: &ModelFiles, requests: &[Request]) -> Result<Loaded> {
    let block = args.model.block_size;
    let most = files.config().max_context;
    let wanted = requests.iter().map(|request| {
        let max_tokens = request.max_tokens.map_or(usize::MAX, |n| n as usize);
        let sequence = n_prompt_tokens(request).saturating_add(max_tokens).min(most);
        (request.n as usize).saturating_mul(sequence.next_multiple_of(block) + block)
    });
    let wanted = wanted.fold(0, usize::saturating_add);
    let longest = requests.iter().filter_map(|request| request.drafting.draft_length).max();
    let own = DraftConfig::default();
    let max = longest.unwrap_or(0).clamp(own.max_draft_length, MAX_DRAFT_LENGTH as u32);
    start(files, &args.model, &args.draft.or_auto().config(own.draft_length, max, None)?, wanted)
}
