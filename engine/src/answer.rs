//! Answers: the pieces of a request as they come, and the whole output of each of its sequences.

use crate::error::{GenerateError, RequestError};
use crate::event::{Event, Usage};
use crate::handle::{Engine, RequestHandle};
use crate::request::Request;
use crate::stop::FinishReason;
use crate::verify::{TokenEvent, TokenSource};

/// One item of a [`RequestHandle`]'s iterator: a token, or the end of a sequence.
///
/// The texts of all pieces of a sequence, one after the other, are its output.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// Index of the sequence among the request's `n`.
    pub index: u32,
    /// The token; None in the last piece of a sequence, which says how the sequence ended, and in
    /// the piece of [`Event::Started`].
    pub token: Option<u32>,
    /// Text that became final with this token. May be empty: see [`TokenEvent::text`].
    pub text: String,
    /// The token's log-probability under the model's own logits, if the request asks for it.
    pub logprob: Option<f32>,
    /// The most likely tokens and their log-probabilities, if the request asks for them.
    pub top: Vec<(u32, f32)>,
    /// The origin of the token; None in the last piece.
    pub source: Option<TokenSource>,
    /// The end of the sequence, in its last piece.
    pub finish: Option<Finish>,
}

/// The end of a sequence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finish {
    /// Why the sequence ended.
    pub reason: FinishReason,
    /// The sequence's token counts, times and draft statistics.
    pub usage: Usage,
}

/// The whole output of one sequence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Index of the sequence among the request's `n`.
    pub index: u32,
    /// The text. Empty without a tokenizer.
    pub text: String,
    /// The token ids, with the token that ended the sequence.
    pub tokens: Vec<u32>,
    /// The origin of each token: a drafter, or the target.
    pub sources: Vec<TokenSource>,
    /// The log-probability of each token and the most likely alternatives; empty unless the request
    /// asks for them.
    pub logprobs: Vec<Logprob>,
    /// Why the sequence ended.
    pub finish: FinishReason,
    /// Token counts, times and draft statistics ([`Usage::drafts`]).
    pub usage: Usage,
}

/// The log-probability of one token of an [`Answer`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Logprob {
    /// The token.
    pub token: u32,
    /// Its log-probability under the model's own logits.
    pub logprob: f32,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Collects the pieces of a request into its answers, for callers that also look at the pieces.
#[derive(Debug, Default)]
pub struct Answers {
    /// One per sequence that has had a piece, by index.
    begun: Vec<Answer>,
}

impl Answers {
    /// No pieces so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece.
    pub fn add(&mut self, piece: Piece) {
        let index = piece.index as usize;
        for next in self.begun.len()..=index {
            self.begun.push(Answer::begin(next as u32));
        }
        self.begun[index].add(piece);
    }

    /// The answers, in the order of the sequences. A sequence without an end counts as cancelled.
    pub fn finish(self) -> Vec<Answer> {
        self.begun
    }
}

impl Answer {
    fn begin(index: u32) -> Self {
        Answer {
            index,
            text: String::new(),
            tokens: Vec::new(),
            sources: Vec::new(),
            logprobs: Vec::new(),
            finish: FinishReason::Cancelled,
            usage: Usage::default(),
        }
    }

    fn add(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.tokens.extend(piece.token);
        self.sources.extend(piece.source);
        if let (Some(token), Some(logprob)) = (piece.token, piece.logprob) {
            self.logprobs.push(Logprob { token, logprob, top: piece.top });
        }
        if let Some(Finish { reason, usage }) = piece.finish {
            self.finish = reason;
            self.usage = usage;
        }
    }
}

impl Piece {
    /// The piece of an event, or the error that ends the request.
    pub fn of(event: Event) -> Result<Self, RequestError> {
        let without_token = |index, finish| {
            let (text, top) = (String::new(), Vec::new());
            Piece { index, token: None, text, logprob: None, top, source: None, finish }
        };
        match event {
            Event::Token(TokenEvent { index, token, text, logprob, top, source, .. }) => {
                let (token, source) = (Some(token), Some(source));
                Ok(Piece { index, token, text, logprob, top, source, finish: None })
            }
            Event::Finished { index, reason, usage } => {
                Ok(without_token(index, Some(Finish { reason, usage })))
            }
            Event::Started(_) => Ok(without_token(0, None)),
            Event::Error(error) => Err(error),
        }
    }
}

impl RequestHandle {
    /// Waits for the request's end and returns the answers of all its sequences, in order.
    ///
    /// # Errors
    ///
    /// The error that ended the request; the output so far is lost. A caller that wants to keep it
    /// takes the pieces one by one.
    pub fn collect(self) -> Result<Vec<Answer>, RequestError> {
        let mut answers = Answers::new();
        for piece in self {
            answers.add(piece?);
        }
        Ok(answers.finish())
    }

    /// The raw events, each as the engine sent it.
    pub fn events(self) -> Events {
        Events(self)
    }
}

impl Iterator for RequestHandle {
    type Item = Result<Piece, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.recv().map(Piece::of)
    }
}

/// An iterator over the raw events of a request. Dropping it cancels the rest of the request.
#[derive(Debug)]
pub struct Events(RequestHandle);

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv()
    }
}

impl Engine {
    /// Submits a request, waits for its end and returns the answer of its first sequence. For the
    /// other sequences of a request with `n` above 1, use [`Engine::submit`] and
    /// [`RequestHandle::collect`].
    ///
    /// # Errors
    ///
    /// A request that cannot be served, or one that the engine could not finish.
    pub fn generate(&self, request: impl Into<Request>) -> Result<Answer, GenerateError> {
        let mut answers = self.submit(request)?.collect()?.into_iter();
        // A request has at least one sequence, and each ends with a piece or the request with an error.
        answers.next().ok_or(GenerateError::Request(RequestError::Stopped {
            reason: "it sent no piece of the request".into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: u32, token: u32, text: &str) -> Event {
        Event::Token(TokenEvent::of_test(index, token, text, vec![(token, -0.5)]))
    }

    #[test]
    fn pieces_of_interleaved_sequences_become_one_answer_each() {
        let (reason, usage) =
            (FinishReason::Length, Usage { prompt_tokens: 3, ..Usage::default() });
        let events = [
            token(1, 7, "b"),
            token(0, 5, "a"),
            token(1, 8, ""),
            Event::Finished { index: 1, reason: reason.clone(), usage: usage.clone() },
        ];
        let mut answers = Answers::new();
        events.into_iter().for_each(|event| answers.add(Piece::of(event).expect("no error")));
        let answers = answers.finish();
        assert_eq!(
            (answers[0].index, &answers[0].tokens[..], &*answers[0].text),
            (0, &[5][..], "a")
        );
        assert_eq!(answers[0].finish, FinishReason::Cancelled, "it has no end");
        assert_eq!((&answers[1].tokens[..], &*answers[1].text), (&[7, 8][..], "b"));
        assert_eq!((&answers[1].finish, &answers[1].usage), (&reason, &usage));
        assert_eq!(answers[1].logprobs[1].top, [(8, -0.5)]);
        let error = RequestError::Failed { reason: "a step failed".into() };
        assert_eq!(Piece::of(Event::Error(error.clone())), Err(error));
    }
}
