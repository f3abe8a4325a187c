//! The expected output of a request: the definition, without engine, blocks, or batches.

use super::letters::letters;
use super::toy::{EOS, Uncached};
use crate::event::Event;
use crate::request::{Prompt, Request};
use crate::stop::{FinishReason, Stopped};
use crate::verify::TokenEvent;
use galley_backend::sample::philox::sequence_seed;
use galley_backend::sample::{SampleRow, SampledToken, Scratch, TokenCounts, sample_token};

/// The output of one sequence, from its events or from the definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stream {
    pub(super) sampled: Vec<SampledToken>,
    pub(super) text: String,
    /// None if the sequence has not ended.
    pub(super) finish: Option<FinishReason>,
}

/// The expected output of sequence `index` of a request.
pub(super) fn expected(request: &Request, index: u32) -> Stream {
    let Prompt::Tokens(prompt) = &request.prompt else { panic!("the oracle reads tokens") };
    let mut model = Uncached::default();
    prompt.iter().for_each(|&token| model.push(token));
    let mut seen = TokenCounts::of_prompt(prompt);
    let sampling = &request.sampling;
    let mut scratch = Scratch::default();
    let mut stream = Stream::default();
    let mut text = String::new(); // before a stop string is cut off
    let mut n_unwatched = 0;
    while stream.finish.is_none() {
        let n = stream.sampled.len();
        let mut banned = Vec::new();
        if request.ignore_eos || n < request.min_tokens as usize {
            banned.push(EOS);
        }
        if n < request.min_tokens as usize {
            banned.extend(&request.stop_tokens);
        }
        let row = SampleRow {
            logits_row: 0,
            sampling,
            seed: sequence_seed(request.seed.unwrap(), index),
            position: (prompt.len() + n) as u32,
            seen: Some(&seen),
            drafted: &[],
            banned: &banned,
            early_ends: &[],
            reports: true,
            rejection: None,
        };
        let sampled = sample_token(&model.logits(), &row, &mut scratch);
        let token = sampled.token;
        stream.sampled.push(sampled);
        model.push(token);
        seen.push_output(token);

        let by_token = if request.stop_tokens.contains(&token) {
            Some(Stopped::Token(token))
        } else {
            (token == EOS && !request.ignore_eos).then_some(Stopped::Eos(token))
        };
        let shown = match by_token {
            Some(Stopped::Eos(_)) => false,
            Some(_) => request.include_stop,
            None => true,
        };
        if shown {
            text += &letters(token);
        }
        if n < request.min_tokens as usize {
            n_unwatched = text.len();
        }
        let by_text = request
            .stop
            .iter()
            .filter_map(|stop| {
                let start = n_unwatched + text[n_unwatched..].find(stop.as_str())?;
                Some((start + stop.len(), start, stop))
            })
            .min();
        stream.text = match by_text {
            Some((end, start, _)) => text[..if request.include_stop { end } else { start }].into(),
            None => text.clone(),
        };
        let stopped = by_token.or(by_text.map(|(_, _, stop)| Stopped::Text(stop.clone())));
        stream.finish = stopped.map(FinishReason::Stop);
        if stream.finish.is_none() && stream.sampled.len() == request.max_tokens.unwrap() as usize {
            stream.finish = Some(FinishReason::Length);
        }
    }
    stream
}

/// The outputs of a request's sequences, from its events. Panics where an event follows an end.
pub(super) fn streams(n: u32, events: impl IntoIterator<Item = Event>) -> Vec<Stream> {
    streams_after(0, n, events)
}

/// [`streams`] of a request that came with `n_generated` tokens of output.
pub(super) fn streams_after(
    n_generated: usize,
    n: u32,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Stream> {
    let mut streams = vec![Stream::default(); n as usize];
    for event in events {
        match event {
            Event::Token(TokenEvent { index, token, text, logprob, top, .. }) => {
                let stream = &mut streams[index as usize];
                assert_eq!(stream.finish, None, "a token after the end");
                stream.sampled.push(SampledToken { token, logprob, top, proposal: None });
                stream.text += &text;
            }
            Event::Finished { index, reason, usage } => {
                let stream = &mut streams[index as usize];
                assert_eq!(stream.finish, None, "two ends");
                assert_eq!(usage.generated_tokens, n_generated + stream.sampled.len());
                stream.finish = Some(reason);
            }
            Event::Started(_) => {}
            Event::Error(error) => panic!("{error}"),
        }
    }
    streams
}
