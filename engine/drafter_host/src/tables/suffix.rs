//! The host functions of suffix indexes.

use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_INVALID, gd_host, gd_matcher, gd_queue, gd_status};

use crate::ffi::{argument, check_out, fill, host_of, status};
use crate::host::{Phase, State};
use crate::{SuffixMatch, SuffixSource};

pub(super) static SUFFIX: abi::gd_host_suffix = abi::gd_host_suffix {
    struct_size: size_of::<abi::gd_host_suffix>(),
    matcher: Some(matcher),
    propose: Some(propose),
    query: Some(query),
};

unsafe extern "C" fn matcher(
    host: *const gd_host,
    args: *const abi::gd_matcher_args,
    out: *mut gd_matcher,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got, and a struct that begins with its size.
        let (host, args) = unsafe { (host_of(host)?, argument(args, MATCHER_BYTES)?) };
        check_out(out)?;
        let id = host.at(Phase::is_control, |state| state.matcher(&args))?;
        // SAFETY: not NULL as checked above, and the drafter promises that it can be written to.
        unsafe { out.write_unaligned(gd_matcher { id }) };
        Ok(())
    })
}

unsafe extern "C" fn propose(
    host: *const gd_host,
    queue: gd_queue,
    matcher: gd_matcher,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got.
        let host = unsafe { host_of(host)? };
        host.at(Phase::is_guess, |state| state.propose(queue.id, matcher.id))
    })
}

unsafe extern "C" fn query(
    host: *const gd_host,
    query: *const abi::gd_query,
    out: *mut abi::gd_match,
) -> gd_status {
    status(|| {
        // SAFETY: the drafter passes the host that it got, and a struct that begins with its size.
        let (host, query) = unsafe { (host_of(host)?, argument(query, QUERY_BYTES)?) };
        check_out(out)?;
        host.at(Phase::is_guess, |state| {
            state.is_unrecordable = true;
            let n_tokens = search(state, &query)?;
            let found = &state.found;
            let values = abi::gd_match {
                struct_size: 0,
                count: u64::from(found.count),
                match_tokens: found.match_tokens,
                n_tokens: n_tokens as u32,
            };
            // SAFETY: the drafter passes a struct that begins with its size.
            unsafe { fill(out, &values)? };
            if n_tokens > 0 {
                // SAFETY: `search` has checked that the arrays are there. The drafter promises room
                // for `capacity` items in both, and `search` has found no more.
                unsafe {
                    query.tokens.copy_from_nonoverlapping(found.tokens.as_ptr(), n_tokens);
                    query
                        .frequencies
                        .copy_from_nonoverlapping(found.frequencies.as_ptr(), n_tokens);
                }
            }
            Ok(())
        })
    })
}

/// Searches the index of the query's row, for as many tokens as the row and the query have room for.
/// Returns the number of tokens in `found`.
fn search(state: &mut State, query: &abi::gd_query) -> Result<usize, gd_status> {
    state.check_queue(query.queue.id)?;
    let place = state.matchers.place(query.matcher.id).ok_or(GD_INVALID)?;
    let is_there = !query.tokens.is_null() && !query.frequencies.is_null();
    let is_aligned = query.tokens.is_aligned() && query.frequencies.is_aligned();
    if query.capacity > 0 && !(is_there && is_aligned) {
        return Err(GD_INVALID);
    }
    let most = state.lent.row(query.row)?.draft_length.min(query.capacity) as usize;
    let matcher = *state.matchers.at(place);
    let suffixes = state.lent.suffixes.ok_or(GD_INVALID)?;
    state.found.clear();
    // SAFETY: `Drafter::guess_with` lent a pointer to its `&mut dyn SuffixSource`, and this is its
    // thread inside the callback, under the lock.
    let source = unsafe { suffixes.cast::<&mut dyn SuffixSource>().as_mut() };
    source.search(query.row as usize, &matcher, most, &mut state.found);
    let SuffixMatch { tokens, frequencies, .. } = &state.found;
    Ok(most.min(tokens.len()).min(frequencies.len()))
}

/// Sizes of the argument structs in version 1.1, all required. Fields of later versions may be
/// missing.
const MATCHER_BYTES: usize = 40;
const QUERY_BYTES: usize = 48;
