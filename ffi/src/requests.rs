//! Requests: submitting and cancelling them.

use crate::border::{bytes, call, is_array, put, put_all, slice};
use crate::engine::OpenEngine;
use crate::error::galley_error;
use crate::failure::Failure;
use crate::queue::{find_open, galley_queue};
use crate::strings::galley_string;
use galley_api::{ApiError, parse_request, parse_request_of_tokens, parse_requests, started_json};
use galley_engine::{EventQueue, Request, Submitted};
use std::ffi::c_char;

/// Submits a request. The queue delivers its events. json is an object: {"prompt": "Once upon a time", "max_tokens":
/// 64} or {"messages": [{"role": "user", "content": "Hello"}]}.
///
/// prompt_ids, if not NULL, are n_prompt_ids token ids: the prompt, which json then must not have.
///
/// tag is the caller's number, which every event of the request carries. Events may arrive before the function
/// returns.
///
/// id (may be NULL) receives the number of the request. started (may be NULL) receives everything that a later
/// request needs to resume this one, as JSON: {"id", "seed", "fingerprint", "prompt_token_ids"}, and "resumed_text"
/// where the request resumes another: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_submit(
    queue: *mut galley_queue,
    json: *const c_char,
    json_len: usize,
    prompt_ids: *const u32,
    n_prompt_ids: usize,
    tag: u64,
    id: *mut u64,
    started: *mut galley_string,
) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { put(id, 0) };
    // SAFETY: the caller's promise.
    unsafe { put(started, galley_string::EMPTY) };
    call(|| {
        let open = find_open(queue)?;
        // SAFETY: the caller's promise.
        let json = unsafe { bytes("json", json, json_len) }?;
        let ids = match prompt_ids.is_null() && n_prompt_ids == 0 {
            true => None,
            // SAFETY: the caller's promise.
            false => Some(unsafe { slice("prompt_ids", prompt_ids, n_prompt_ids) }?),
        };
        let submitted = open.events.submit(tag, request_of(&open.engine, json, ids)?);
        let submitted = submitted.map_err(ApiError::from)?;
        if !started.is_null() {
            let text = galley_string::new(started_json(&submitted))
                .inspect_err(|_| cancel(&open.events, std::slice::from_ref(&submitted)))?;
            // SAFETY: the caller's promise.
            unsafe { put(started, text) };
        }
        // SAFETY: the caller's promise.
        unsafe { put(id, submitted.id) };
        Ok(())
    })
}

/// The request in a JSON object. `prompt_ids` is the prompt, unless it is None.
fn request_of(
    engine: &OpenEngine,
    json: &[u8],
    prompt_ids: Option<&[u32]>,
) -> Result<Request, Failure> {
    let body = match prompt_ids {
        Some(ids) => parse_request_of_tokens(json, ids.to_vec())?,
        None => parse_request(json)?,
    };
    Ok(body.into_request(&engine.texts)?)
}

/// Submits several requests, all or none, which the engine receives before the same step. json is an array of
/// n_requests objects. tags has n_requests tags.
///
/// ids (may be NULL) receives n_requests numbers, in order. started (may be NULL) receives an array of the objects of
/// galley_submit: free it with galley_string_free.
///
/// # Safety
///
/// Pointers are NULL, or valid as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn galley_submit_many(
    queue: *mut galley_queue,
    json: *const c_char,
    json_len: usize,
    tags: *const u64,
    n_requests: usize,
    ids: *mut u64,
    started: *mut galley_string,
) -> *mut galley_error {
    // SAFETY: the caller's promise.
    unsafe { put(started, galley_string::EMPTY) };
    let error = call(|| {
        let open = find_open(queue)?;
        // SAFETY: the caller's promise.
        let json = unsafe { bytes("json", json, json_len) }?;
        // SAFETY: the caller's promise.
        let tags = unsafe { slice("tags", tags, n_requests) }?;
        if !ids.is_null() && !is_array(ids, n_requests) {
            return Err(Failure::argument(
                "ids",
                "NULL or an aligned pointer to n_requests places",
            ));
        }
        let bodies = parse_requests(json)?;
        if bodies.len() != tags.len() {
            let rule = format!("as many as there are requests in json: {}", bodies.len());
            return Err(Failure::argument("n_requests", &rule));
        }
        let requests = bodies.into_iter().map(|body| body.into_request(&open.engine.texts));
        let requests: Vec<Request> = requests.collect::<Result<_, _>>()?;
        let submitted = open.events.submit_all(tags.iter().copied().zip(requests));
        let submitted = submitted.map_err(ApiError::from)?;
        if !started.is_null() {
            let objects: Vec<String> = submitted.iter().map(started_json).collect();
            let text = galley_string::new(format!("[{}]", objects.join(",")))
                .inspect_err(|_| cancel(&open.events, &submitted))?;
            // SAFETY: the caller's promise.
            unsafe { put(started, text) };
        }
        if !ids.is_null() {
            for (i, submitted) in submitted.iter().enumerate() {
                // SAFETY: the caller has room for n_requests numbers, and there are as many requests.
                unsafe { put(ids.add(i), submitted.id) };
            }
        }
        Ok(())
    });
    if !error.is_null() {
        // Not before the call: `ids` and `tags` may be one array.
        // SAFETY: the caller's promise.
        unsafe { put_all(ids, 0, n_requests) };
    }
    error
}

/// Cancels requests whose submission fails after the engine has accepted them.
fn cancel(events: &EventQueue, submitted: &[Submitted]) {
    for Submitted { id, .. } in submitted {
        events.cancel(*id);
    }
}

/// Ends the remaining sequences of a request. GALLEY_FINISHED with the reason "cancelled" follows for each of them. A
/// request that has ended is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn galley_cancel(queue: *mut galley_queue, id: u64) -> *mut galley_error {
    call(|| {
        find_open(queue)?.events.cancel(id);
        Ok(())
    })
}
