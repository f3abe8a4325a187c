//! Kernels for a round of drafting, beside its forwards: prompt lookup and verification, each against its definition.

use galley_kernels_cu::bindings::*;
use galley_kernels_cu::emulated;
use std::ptr::null_mut;

/// Reproducible random numbers.
struct Random(u32);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) as usize % n
    }
}

/// A sequence and the limits of its search: tokens, min_n, max_n, n.
type Asked = (Vec<u32>, usize, usize, usize);

/// The definition: the tokens that followed the latest earlier occurrence of the longest suffix.
fn naive((tokens, min_n, max_n, n): &Asked) -> Vec<u32> {
    for length in (*min_n.max(&1)..=*max_n.min(&tokens.len())).rev() {
        let suffix = &tokens[tokens.len() - length..];
        for end in (length..tokens.len()).rev() {
            if &tokens[end - length..end] == suffix {
                return tokens[end..].iter().copied().take(*n).collect();
            }
        }
    }
    Vec::new()
}

fn history(asked: &[Asked], stride: usize) -> Vec<Vec<u32>> {
    let (mut tokens, mut seqs) = (vec![9; 5], Vec::new());
    for (own, min_n, max_n, n) in asked {
        seqs.push(gk_history_seq {
            first: tokens.len() as i64,
            n_tokens: own.len() as i32,
            min_n: *min_n as i32,
            max_n: *max_n as i32,
            n: *n as i32,
        });
        tokens.extend(own);
    }
    let mut found = vec![77; asked.len() * stride];
    let mut counts = vec![-1; asked.len()];
    let call = gk_history {
        tokens: tokens.as_ptr(),
        seqs: seqs.as_ptr(),
        found: found.as_mut_ptr(),
        counts: counts.as_mut_ptr(),
        n_seqs: asked.len() as i32,
        found_stride: stride as i32,
    };
    // SAFETY: every pointer has room for the sizes in the call; the emulation finishes before the call returns.
    let error =
        unsafe { emulated().history.expect("it is in the table")(&raw const call, null_mut()) };
    assert_eq!(error, 0);
    let each = found.chunks(stride).zip(counts);
    let each = each.map(|(found, count)| {
        let (found, rest) = found.split_at(count as usize);
        assert!(rest.iter().all(|&token| token == 77), "more was written than was found");
        found.to_vec()
    });
    each.collect()
}

#[test]
fn history_is_what_its_definition_says() {
    let mut random = Random(1);
    let mut asked: Vec<Asked> = Vec::new();
    for _ in 0..600 {
        let n_tokens = random.below(40);
        let tokens = (0..n_tokens).map(|_| random.below(4) as u32).collect();
        asked.push((tokens, random.below(4), 1 + random.below(5), random.below(6)));
    }
    for n_kinds in [2, 5, 300] {
        let tokens = (0..3000).map(|_| random.below(n_kinds) as u32).collect();
        asked.push((tokens, 1, 20, 8));
    }
    asked.push((vec![4; 700], 2, 3, 8));
    asked.push((vec![4; 10], 1, 0, 8));
    let got = history(&asked, 8);
    let mut n_found = 0;
    for (asked, got) in asked.iter().zip(&got) {
        assert_eq!(got, &naive(asked), "{asked:?}");
        n_found += usize::from(!got.is_empty());
    }
    assert!(n_found > 200, "{n_found}");
    // The negative control: a limit of one token for the suffix changes results.
    let shorter: Vec<Asked> = asked.iter().map(|(t, min, _, n)| (t.clone(), *min, 1, *n)).collect();
    let n_noticed = history(&shorter, 8).iter().zip(&got).filter(|(a, b)| a != b).count();
    assert!(n_noticed > 50, "{n_noticed}");
    // Results longer than the stride are cut.
    let cut = history(&asked, 2);
    assert!(cut.iter().zip(&got).all(|(cut, whole)| cut[..] == whole[..whole.len().min(2)]));
}

fn verify(drafts: &[Vec<u32>], sampled_rows: &[Vec<u32>]) -> Vec<(usize, u32)> {
    let (mut drafted, mut sampled, mut seqs) = (vec![9; 3], Vec::new(), Vec::new());
    for (draft, own) in drafts.iter().zip(sampled_rows) {
        seqs.push(gk_verify_seq {
            first_sampled: sampled.len() as i32,
            first_drafted: drafted.len() as i32,
            n_drafted: draft.len() as i32,
        });
        drafted.extend(draft);
        sampled.extend(own.iter().map(|&token| gk_sampled { token, logprob: 0.0 }));
    }
    let mut out = vec![gk_verified { n_accepted: -1, next: 77 }; drafts.len() + 1];
    let call = gk_verify {
        sampled: sampled.as_ptr(),
        drafted: drafted.as_ptr(),
        seqs: seqs.as_ptr(),
        out: out.as_mut_ptr(),
        n_seqs: drafts.len() as i32,
    };
    // SAFETY: every pointer has room for the sizes in the call; the emulation finishes before the call returns.
    let error =
        unsafe { emulated().verify.expect("it is in the table")(&raw const call, null_mut()) };
    assert_eq!(error, 0);
    assert_eq!(out.pop().map(|beyond| beyond.next), Some(77), "a result beyond the last");
    out.iter().map(|verified| (verified.n_accepted as usize, verified.next)).collect()
}

#[test]
fn verification_keeps_the_prefix_that_agrees() {
    let mut random = Random(2);
    let (mut drafts, mut sampled_rows, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for case in 0..400 {
        let length = [0, 1, 4, 8, 31, 32, 33, 70][case % 8];
        let draft: Vec<u32> = (0..length).map(|_| random.below(1000) as u32).collect();
        // Tokens after the first disagreement agree again. They must not count.
        let mut sampled: Vec<u32> = draft.clone();
        sampled.push(random.below(1000) as u32);
        let n_accepted = random.below(length + 1);
        if n_accepted < length {
            sampled[n_accepted] += 1000;
        }
        expected.push((n_accepted, sampled[n_accepted]));
        drafts.push(draft);
        sampled_rows.push(sampled);
    }
    assert_eq!(verify(&drafts, &sampled_rows), expected);
    // The negative control: an earlier difference in one token is noticed.
    let at = expected.iter().position(|&(n_accepted, _)| n_accepted > 2).expect("some are longer");
    drafts[at][1] += 1;
    let noticed = verify(&drafts, &sampled_rows);
    assert_eq!(noticed[at], (1, sampled_rows[at][1]));
    assert_ne!(noticed, expected);
}

#[test]
fn bad_calls_are_refused() {
    // SAFETY: zeros are valid numbers and pointers; refused calls and calls without sequences access no memory.
    unsafe {
        let (mut verify, mut history): (gk_verify, gk_history) =
            (std::mem::zeroed(), std::mem::zeroed());
        let table = emulated();
        let (verify_at, history_at) = (table.verify.expect("there"), table.history.expect("there"));
        assert_eq!(
            (verify_at(&raw const verify, null_mut()), history_at(&raw const history, null_mut())),
            (0, 0)
        );
        for n_seqs in [1, -1] {
            (verify.n_seqs, history.n_seqs) = (n_seqs, n_seqs);
            assert_eq!(verify_at(&raw const verify, null_mut()), GK_BAD_CALL);
            assert_eq!(history_at(&raw const history, null_mut()), GK_BAD_CALL);
        }
    }
}
