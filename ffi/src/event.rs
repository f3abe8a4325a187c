//! Events of requests as C reads them, and the memory behind their pointers.

use crate::codes;
use crate::failure::Failure;
use crate::handles::{Kind, Table};
use crate::strings::with_nul;
use galley_api::{ApiError, finished_json};
use galley_engine::{Event, QueuedEvent, TokenEvent, TokenSource};
use std::ffi::c_char;

/// A token and its log-probability under the model's own logits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct galley_logprob {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// One event of a request. Pointers live until galley_queue_release.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct galley_event {
    /// Bytes that the library has written, of the event_size that the caller gave.
    pub size: u32,
    /// GALLEY_TOKEN, GALLEY_FINISHED or GALLEY_ERROR. Ignore other kinds.
    pub kind: u32,
    /// The request: the number that galley_submit gave.
    pub id: u64,
    /// The request: the caller's own number.
    pub tag: u64,
    /// GALLEY_HAS_LOGPROB and GALLEY_IS_LAST. Ignore other bits.
    pub flags: u32,
    /// The sequence, among the n of the request. 0 in GALLEY_ERROR, which ends all of them.
    pub index: u32,
    /// The token.
    pub token: u32,
    /// The token's log-probability under the model's own logits, where GALLEY_HAS_LOGPROB is set; otherwise 0.
    pub logprob: f32,
    /// The drafter of the token, as a place in "drafters" of galley_engine_info. -1: no drafter, the model
    /// itself.
    pub drafter: i32,
    /// The place of the token in its draft, from 0.
    pub position: u32,
    /// The text that became final with this token. May be empty: a character may consist of several tokens, and text
    /// that may begin a stop string is held back. The texts of all events of a sequence are its output.
    pub text: *const c_char,
    /// In bytes, without the NUL.
    pub text_len: usize,
    /// The most likely tokens, most likely first, if the request asks for them.
    pub top: *const galley_logprob,
    /// Their number.
    pub n_top: usize,
    /// The JSON object of GALLEY_FINISHED and GALLEY_ERROR; empty otherwise.
    pub json: *const c_char,
    /// In bytes, without the NUL.
    pub json_len: usize,
    /// The library's number of the event, for galley_queue_release.
    pub ticket: u64,
}

/// Size of [`galley_event`] in the first version of the interface: no caller has a smaller one.
pub(crate) const MIN_EVENT_SIZE: usize = 104;

/// The memory behind the pointers of events, by ticket.
pub(crate) struct Leases {
    table: Table<Lease>,
    n_leases: usize,
}

/// The memory of one event: text or JSON with a NUL, and log-probabilities. It lies still while the table has it: a
/// Vec may move, its memory does not.
struct Lease {
    _text: Vec<u8>,
    _top: Vec<galley_logprob>,
}

impl Leases {
    pub(crate) const fn new() -> Self {
        Leases { table: Table::new(Kind::Event), n_leases: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.n_leases == 0
    }

    /// The event as C reads it; None for a kind of events that C does not hear of.
    pub(crate) fn lend(&mut self, queued: QueuedEvent) -> Result<Option<galley_event>, Failure> {
        let QueuedEvent { tag, id, event, is_last, .. } = queued;
        let flags = if is_last { codes::GALLEY_IS_LAST } else { 0 };
        let lent = galley_event { tag, id, flags, ..BLANK };
        let lent = match event {
            Event::Token(token) => self.lend_token(lent, token)?,
            Event::Finished { index, reason, usage } => {
                let lent = galley_event { kind: codes::GALLEY_FINISHED, index, ..lent };
                self.lend_json(lent, finished_json(index, &reason, &usage))?
            }
            Event::Error(error) => {
                let lent = galley_event { kind: codes::GALLEY_ERROR, ..lent };
                self.lend_json(lent, ApiError::from(error).to_json())?
            }
            // galley_submit has told the facts of a start already.
            _ => return Ok(None),
        };
        Ok(Some(lent))
    }

    fn lend_token(
        &mut self,
        mut lent: galley_event,
        event: TokenEvent,
    ) -> Result<galley_event, Failure> {
        let TokenEvent { index, token, text, logprob, top, source, .. } = event;
        (lent.kind, lent.index, lent.token) = (codes::GALLEY_TOKEN, index, token);
        if let Some(logprob) = logprob {
            lent.logprob = logprob;
            lent.flags |= codes::GALLEY_HAS_LOGPROB;
        }
        if let TokenSource::Draft { drafter, position } = source {
            lent.drafter = i32::try_from(drafter).unwrap_or(i32::MAX);
            lent.position = position;
        }
        if text.is_empty() && top.is_empty() {
            return Ok(lent); // there is nothing to free
        }
        let top = top.into_iter().map(|(token, logprob)| galley_logprob { token, logprob });
        let (text, top) = (with_nul(text), top.collect::<Vec<_>>());
        (lent.text, lent.text_len) = (text.as_ptr().cast(), text.len() - 1);
        if !top.is_empty() {
            (lent.top, lent.n_top) = (top.as_ptr(), top.len());
        }
        self.keep(lent, Lease { _text: text, _top: top })
    }

    fn lend_json(&mut self, mut lent: galley_event, json: String) -> Result<galley_event, Failure> {
        let json = with_nul(json);
        (lent.json, lent.json_len) = (json.as_ptr().cast(), json.len() - 1);
        self.keep(lent, Lease { _text: json, _top: Vec::new() })
    }

    fn keep(&mut self, lent: galley_event, lease: Lease) -> Result<galley_event, Failure> {
        let ticket = self.table.insert(lease).ok_or_else(|| Failure::full("unreleased events"))?;
        self.n_leases += 1;
        Ok(galley_event { ticket, ..lent })
    }

    /// Frees the memory of an event. False if there is none under this ticket. Events without memory have the ticket
    /// 0.
    pub(crate) fn release(&mut self, ticket: u64) -> bool {
        if ticket == 0 {
            return true;
        }
        let is_there = self.table.remove(ticket).is_ok();
        self.n_leases -= usize::from(is_there);
        is_there
    }
}

/// An event that says nothing. Its texts are empty.
const BLANK: galley_event = galley_event {
    size: size_of::<galley_event>() as u32,
    kind: 0,
    id: 0,
    tag: 0,
    flags: 0,
    index: 0,
    token: 0,
    logprob: 0.0,
    drafter: -1,
    position: 0,
    text: c"".as_ptr(),
    text_len: 0,
    top: std::ptr::null(),
    n_top: 0,
    json: c"".as_ptr(),
    json_len: 0,
    ticket: 0,
};

const _: () = assert!(size_of::<galley_event>() >= MIN_EVENT_SIZE);
