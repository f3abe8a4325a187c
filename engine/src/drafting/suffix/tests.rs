//! Suffix indexes against a model that looks at every place of every text, and the limits of their
//! memory.

use super::automaton::SuffixAutomaton;
use super::{SuffixRow, SuffixStore};
use crate::draft_settings::SUFFIX_BYTES_A_TOKEN;
use galley_drafter_host::{Matcher, SuffixMatch};

/// Texts, of which the last is open or all have ended.
#[derive(Clone, Debug)]
struct Naive {
    texts: Vec<Vec<u32>>,
    is_open: bool,
    /// The control: of equally frequent tokens the earliest one.
    prefers_earliest: bool,
}

impl Naive {
    fn open(text: &[u32]) -> Self {
        Naive { texts: vec![text.to_vec()], is_open: true, prefers_earliest: false }
    }

    /// Ends of all occurrences of a string: number of the text, and position.
    fn ends(&self, string: &[u32]) -> Vec<(usize, usize)> {
        let texts = self.texts.iter().enumerate();
        let ends = texts.flat_map(|(number, text)| {
            let ends = (string.len()..=text.len()).map(move |end| (number, end));
            ends.filter(|(_, end)| &text[end - string.len()..*end] == string)
        });
        ends.collect()
    }

    /// Occurrences but for the one at the end of the open text.
    fn n_earlier(&self, string: &[u32]) -> usize {
        let last = self.texts.len() - 1;
        let at_end = (last, self.texts[last].len());
        self.ends(string).iter().filter(|&&end| !self.is_open || end != at_end).count()
    }

    /// The most frequent token after a string and its number of occurrences.
    fn best(&self, string: &[u32]) -> Option<(u32, usize)> {
        let ends = self.ends(string).into_iter();
        let followers: Vec<u32> =
            ends.filter_map(|(number, end)| self.texts[number].get(end).copied()).collect();
        let count = |token| followers.iter().filter(|&&other| other == token).count();
        let latest = |token| followers.iter().rposition(|&other| other == token);
        let earliest = |token| followers.iter().position(|&other| other == token);
        let key = |&&token: &&u32| match self.prefers_earliest {
            false => (count(token), latest(token)),
            true => (count(token), earliest(token).map(|at| followers.len() - at)),
        };
        followers.iter().max_by_key(key).map(|&token| (token, count(token)))
    }

    /// The match of the latest `tokens`, and its continuation.
    fn search(&self, tokens: &[u32], matcher: &Matcher, most: usize) -> SuffixMatch {
        let mut found = SuffixMatch::default();
        let (min, max) = (matcher.min_match as usize, matcher.max_match as usize);
        let lengths = (min..=max.min(64).min(tokens.len())).rev();
        let suffixes = lengths.map(|length| &tokens[tokens.len() - length..]);
        let Some(suffix) = suffixes.into_iter().find(|suffix| self.n_earlier(suffix) > 0) else {
            return found;
        };
        (found.match_tokens, found.count) = (suffix.len() as u32, self.n_earlier(suffix) as u32);
        let limit = (matcher.tokens_per_match * suffix.len() as f64) as usize;
        let (mut context, mut frequency) = (suffix.to_vec(), 1.0);
        while found.tokens.len() < limit.min(most) {
            let (token, count) = loop {
                if context.len() < min {
                    return found;
                }
                match self.best(&context) {
                    Some(best) => break best,
                    None => _ = context.remove(0),
                }
            };
            frequency *= count as f64 / self.n_earlier(&context) as f64;
            if frequency < matcher.min_frequency {
                return found;
            }
            found.tokens.push(token);
            found.frequencies.push(frequency as f32);
            context.push(token);
            context.drain(..context.len().saturating_sub(64));
        }
        found
    }
}

/// Reproducible random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    /// Text of few different tokens that repeats parts of itself.
    fn text(&mut self, most: usize, n_tokens: usize) -> Vec<u32> {
        let mut text: Vec<u32> = Vec::new();
        let length = self.below(most + 1);
        while text.len() < length {
            if !text.is_empty() && self.below(3) == 0 {
                let (from, n) = (self.below(text.len()), 1 + self.below(90));
                (from..from + n).for_each(|at| text.push(text[at]));
            } else {
                text.push(self.below(n_tokens) as u32);
            }
        }
        text.truncate(length);
        text
    }

    fn matcher(&mut self) -> Matcher {
        let min_match = 1 + self.below(3) as u32;
        Matcher {
            min_match,
            max_match: min_match + [0, 1, 5, 62, 200][self.below(5)],
            tokens_per_match: [0.3, 1.0, 2.5, 1e9][self.below(4)],
            min_frequency: [0.0, 0.1, 0.5, 1.0][self.below(4)],
            uses_memory: true,
        }
    }
}

fn all() -> Matcher {
    let (tokens_per_match, min_frequency) = (1e9, 0.0);
    Matcher { min_match: 1, max_match: 64, tokens_per_match, min_frequency, uses_memory: true }
}

/// The result of an automaton of one open text.
fn proposal(automaton: &SuffixAutomaton, matcher: &Matcher, most: usize) -> SuffixMatch {
    let mut found = SuffixMatch::default();
    automaton.propose(automaton.longest(matcher.max_match), matcher, most, &mut found);
    found
}

fn automaton_of(text: &[u32]) -> SuffixAutomaton {
    let mut automaton = SuffixAutomaton::with_capacity(4);
    text.iter().for_each(|&token| automaton.push(token));
    automaton
}

#[test]
fn matches_and_continuations_of_small_texts() {
    let search = |text: &[u32], most| {
        let SuffixMatch { match_tokens, count, tokens, frequencies } =
            proposal(&automaton_of(text), &all(), most);
        (match_tokens, count, tokens, frequencies)
    };
    assert_eq!(search(&[], 3), (0, 0, vec![], vec![]));
    assert_eq!(search(&[5], 3), (0, 0, vec![], vec![]));
    assert_eq!(search(&[1, 2, 3, 7, 2, 3], 2), (2, 1, vec![7, 2], vec![1.0, 1.0]));
    // 8 has followed 2 twice, 7 once.
    let text = [2, 8, 0, 2, 8, 1, 2, 7, 3, 2];
    assert_eq!(search(&text, 1), (1, 3, vec![8], vec![2.0 / 3.0]));
    // Both have followed once: the latest wins.
    assert_eq!(search(&[2, 8, 0, 2, 7, 3, 2], 1), (1, 2, vec![7], vec![0.5]));
    // At the end of the text, a shorter suffix goes on: repetition is continued.
    let (length, count, tokens, _) = search(&[4, 5, 4, 5, 4, 5], 6);
    assert_eq!((length, count, tokens), (4, 1, vec![4, 5, 4, 5, 4, 5]));
}

#[test]
fn an_index_finds_the_same_as_a_look_at_every_place() {
    let (mut random, mut n_long, mut n_found, mut n_other) = (Random(1), 0, 0, 0);
    for _ in 0..150 {
        let n_tokens = [1, 2, 3, 8, 60][random.below(5)];
        let text = random.text(200, n_tokens);
        let mut automaton = SuffixAutomaton::with_capacity(4);
        for (at, &token) in text.iter().enumerate() {
            automaton.push(token);
            if random.below(8) > 0 {
                continue;
            }
            let (matcher, most, naive) =
                (random.matcher(), random.below(20), Naive::open(&text[..=at]));
            let found = proposal(&automaton, &matcher, most);
            assert_eq!(
                found,
                naive.search(&text[..=at], &matcher, most),
                "{text:?} at {at} {matcher:?}"
            );
            n_long += usize::from(found.match_tokens == 64);
            n_found += found.tokens.len();
            let control = Naive { prefers_earliest: true, ..naive };
            n_other += usize::from(found != control.search(&text[..=at], &matcher, most));
        }
    }
    assert!(n_long > 50 && n_found > 3000, "{n_long} {n_found}");
    assert!(n_other > 5, "another order of equally frequent tokens is noticed: {n_other}");
}

#[test]
fn outputs_of_a_salt_are_found_as_at_every_place() {
    let (mut random, mut n_found) = (Random(2), 0);
    for _ in 0..60 {
        let n_tokens = [2, 3, 8][random.below(3)];
        let mut store = SuffixStore::new(8 << 20);
        let mut naive = Naive { texts: Vec::new(), is_open: false, prefers_earliest: false };
        let mut text = vec![0];
        for _ in 0..30 {
            if random.below(4) == 0 {
                let output = random.text(100, n_tokens);
                store.remember(3, &output);
                store.remember(4, &random.text(100, n_tokens));
                naive.texts.extend((!output.is_empty()).then_some(output));
            }
            text.extend((0..random.below(90)).map(|_| random.below(n_tokens) as u32));
            let (matcher, most) = (random.matcher(), random.below(20));
            let row = SuffixRow { sequence: 9, salt: 3, tokens: &text };
            let mut found = SuffixMatch::default();
            store.search(row, &matcher, most, &mut found);
            let own = Naive::open(&text).search(&text, &matcher, most);
            let other = match naive.texts.is_empty() {
                true => SuffixMatch::default(),
                false => naive.search(&text, &matcher, most),
            };
            let is_better = other.expected_tokens() > own.expected_tokens();
            n_found += usize::from(is_better);
            assert_eq!(
                found,
                if is_better { other } else { own },
                "{text:?} {naive:?} {matcher:?}"
            );
        }
    }
    assert!(n_found > 100, "{n_found}");
}

fn row(sequence: u64, tokens: &[u32]) -> SuffixRow<'_> {
    SuffixRow { sequence, salt: 0, tokens }
}

fn tokens_found(store: &mut SuffixStore, row: SuffixRow<'_>, uses_memory: bool) -> Vec<u32> {
    let mut found = SuffixMatch::default();
    store.search(row, &Matcher { min_match: 2, uses_memory, ..all() }, 3, &mut found);
    found.tokens
}

/// The latest part of a text that is longer than its index may be is found, and earlier text is not.
#[test]
fn a_long_text_keeps_its_latest_part() {
    // Room for 512 tokens.
    let mut store = SuffixStore::new(128 << 10);
    let mut text: Vec<u32> = vec![1, 2, 3];
    text.extend(1000..1400);
    assert_eq!(
        tokens_found(&mut store, row(1, &[&text[..], &[1, 2]].concat()), false),
        [3, 1000, 1001]
    );
    store.end(1);
    assert_eq!(store.index_bytes(), 0);
    for n_more in [0, 1, 300, 700, 5000] {
        let more: Vec<u32> = (2000..2000 + n_more).collect();
        text.extend(&more);
        let asked = [&text[..], &[1, 2]].concat();
        let latest = [&text[..], &text[text.len() - 100..text.len() - 98]].concat();
        let is_short = asked.len() < 512;
        // Read at once, and token by token.
        for sequence in [2, 3] {
            let from = if sequence == 2 { asked.len() } else { 1 };
            for end in from..asked.len() {
                store.index(row(sequence, &asked[..end]));
            }
            let found = tokens_found(&mut store, row(sequence, &asked), false);
            assert_eq!(found.is_empty(), !is_short, "{n_more}");
            store.end(sequence);
        }
        let found = tokens_found(&mut store, row(4, &latest), false);
        assert_eq!(found, text[text.len() - 98..text.len() - 95], "{n_more}");
        assert!(store.index_bytes() <= 96 << 10, "{}", store.index_bytes());
        store.end(4);
    }
}

/// The limits that users are told.
#[test]
fn an_index_takes_the_bytes_that_are_said() {
    for n_tokens in [512, 4096, super::MAX_TOKENS] {
        assert_eq!(SuffixAutomaton::bytes_of(n_tokens), n_tokens * SUFFIX_BYTES_A_TOKEN);
    }
    let mut random = Random(4);
    for n_tokens in [1, 2, 3, 50_000] {
        let text: Vec<u32> =
            std::iter::repeat_with(|| random.text(200, n_tokens)).take(100).flatten().collect();
        let n_room = text.len().next_power_of_two();
        let mut automaton = SuffixAutomaton::with_capacity(n_room);
        text.iter().cycle().take(n_room).for_each(|&token| automaton.push(token));
        assert_eq!(automaton.bytes(), SuffixAutomaton::bytes_of(n_room), "{n_tokens}");
    }
}

#[test]
fn bytes_stay_within_the_limit_and_come_back() {
    let limit = 4 << 20;
    let (mut store, mut random) = (SuffixStore::new(limit), Random(3));
    let mut texts: Vec<Vec<u32>> = vec![Vec::new(); 40];
    let mut n_without = 0;
    for _ in 0..3000 {
        let at = random.below(texts.len());
        if random.below(30) == 0 {
            store.end(at as u64);
            store.remember(random.below(50) as u64, &texts[at]);
            texts[at].clear();
        }
        let n_tokens = [3, 50_000][random.below(2)];
        texts[at].extend(random.text(300, n_tokens));
        n_without += usize::from(store.index(row(at as u64, &texts[at])).is_none());
        assert!(store.index_bytes() <= limit * 3 / 4, "{}", store.index_bytes());
        assert!(store.memory_bytes() <= limit / 4, "{}", store.memory_bytes());
    }
    assert!(store.memory_bytes() > limit / 8 && n_without > 0, "both limits are reached");
    (0..texts.len() as u64).for_each(|sequence| store.end(sequence));
    assert_eq!(store.index_bytes(), 0);
    // Without memory there is no index, and nothing fails.
    let mut none = SuffixStore::new(0);
    none.remember(0, &[1, 2, 3]);
    assert_eq!(tokens_found(&mut none, row(1, &[1, 2, 3, 1, 2]), true), [0; 0]);
    assert_eq!((none.index_bytes(), none.memory_bytes()), (0, 0));
}

#[test]
fn the_oldest_outputs_leave_first_and_salts_stay_apart() {
    let mut store = SuffixStore::new(4 << 20);
    let output = |number: u32| -> Vec<u32> { (0..200).map(|i| number * 1000 + i).collect() };
    let knows = |store: &mut SuffixStore, salt: u64, number: u32| {
        let tokens = [number * 1000 + 50, number * 1000 + 51];
        let row = SuffixRow { sequence: 1, salt, tokens: &tokens };
        let found = tokens_found(store, row, true);
        store.end(1);
        assert!(found.is_empty() || found[0] == tokens[1] + 1);
        !found.is_empty()
    };
    store.remember(7, &output(1));
    assert!(knows(&mut store, 7, 1) && !knows(&mut store, 8, 1) && !knows(&mut store, 0, 1));
    let n_others = (2..200)
        .take_while(|&number| {
            store.remember(u64::from(number) + 100, &output(number));
            knows(&mut store, 7, 1)
        })
        .count();
    assert!(n_others > 10, "{n_others}");
    assert!(knows(&mut store, 102, 2), "only the oldest has left");
    // One salt with much output: its first outputs leave, its latest ones stay.
    (200..1000).for_each(|number| store.remember(7, &output(number)));
    assert!(!knows(&mut store, 7, 200) && knows(&mut store, 7, 999) && knows(&mut store, 7, 990));
}
