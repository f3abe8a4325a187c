//! Selections that stay on the device.

use super::counting::Counting;
use super::*;
use crate::cuda::selections::Selections;
use crate::{Selected, SelectedIds};

const LEN: usize = 96;
const TAIL_START: usize = 90;

/// Different positions for every layer and KV head.
fn positions(step: u32) -> Vec<u32> {
    (0..LAYERS as u32 * 2).flat_map(|run| (0..20).map(move |i| i * step + run % step)).collect()
}

fn view(ids: &[u32], version: u64) -> KvView<'_> {
    let selection = SelectedIds { ids, n: 20, n_kv_heads: 2, version };
    KvView { selected: Selected::Tokens(selection), tail_start: TAIL_START as u32 }
}

#[test]
fn a_selection_is_sent_once_while_it_stays_what_it_is() {
    let cache = Cache::new(&mut Values(31), (4, 2, 32), LEN);
    let (mut backend, counting) = Counting::backend();
    let (first, second) = (positions(3), positions(4));
    let chunks = [TAIL_START, 1, 1, 1, 1, 1, 1];
    let n_bytes = size_of_val(&first[..]);
    let mut run = |ids: &[u32], version: u64| {
        counting.take_uploaded();
        let out = cache.run(&mut backend, &chunks, view(ids, version), None);
        (out, counting.take_uploaded())
    };
    run(&first, 0); // uploads the data that later runs find on the device
    let (expected, always) = run(&first, 0);
    let (got, once) = run(&first, 1);
    assert!(expected == got);
    assert_eq!(always - once, 5 * n_bytes, "six of the chunks have the view");
    let (got, never) = run(&first, 1);
    assert!(expected == got);
    assert_eq!(always - never, 6 * n_bytes, "it is there");
    let (other, _) = run(&second, 0);
    assert!(other != expected, "the selection matters");
    let (got, again) = run(&second, 2);
    assert!(other == got);
    assert_eq!(always - again, 5 * n_bytes, "a changed selection is sent");
    // The control: changed ids under an unchanged version are not uploaded.
    let (got, stale) = run(&second, 1);
    assert!(got == expected && stale == never);
}

/// Every batch checks again that a known selection ends before the tail, because the tail moves.
#[test]
fn a_known_selection_is_still_checked() {
    let cache = Cache::new(&mut Values(32), (4, 2, 32), LEN);
    let Some(mut backend) = backend() else { return };
    let ids = positions(4); // up to 79
    let known = KvView { tail_start: 79, ..view(&ids, 1) };
    let later = view(&ids, 1);
    cache.run_chunks(&mut backend, &[LEN], KvView::default(), None, |backend, _, pool, _| {
        let mut begin = |view: KvView<'_>| {
            let table = &cache.table[..];
            let span =
                SeqSpan { first_row: 0, n_rows: 1, block_table: table, writes_kv: true, view };
            let batch = Batch {
                tokens: &[InputToken::known(0)],
                positions: &[LEN as u32 - 1],
                seqs: &[span],
                logit_rows: &[],
            };
            backend.begin(&batch, pool, &cache.rope, 4, cache.params(None))
        };
        begin(later).unwrap();
        begin(later).unwrap();
        let error = begin(known).unwrap_err().to_string();
        assert!(error.contains("ascending positions before the tail"), "{error}");
    });
}

/// Under any eviction, a batch's selections lie at the offsets that `place` returns.
#[test]
fn the_least_recently_used_makes_room() {
    let device: Arc<dyn Device> = emulated::open().expect("the emulation");
    let contents = |version: u64| -> Vec<u32> {
        let n = 40 + version as usize * 13 % 200;
        (0..n as u32).map(|i| version as u32 * 1000 + i).collect()
    };
    fn selection(ids: &[u32], version: u64) -> SelectedIds<'_> {
        SelectedIds { version, ..SelectedIds::everywhere(ids) }
    }
    let mut kept = Selections::with_max(2048);
    let mut values = Values(33);
    let mut n_known = 0;
    for step in 0..400_u64 {
        // Version 3 comes in every batch, as does one unversioned selection. The rest change
        // gradually. Every 50th batch is large.
        let n = if step % 50 == 49 { 30 } else { 6 };
        let mut versions: Vec<u64> =
            (0..n).map(|_| 1 + step / 7 + values.below(5) as u64).collect();
        versions.extend([3, 0, 3]);
        let ids: Vec<Vec<u32>> = versions.iter().map(|&version| contents(version)).collect();
        let of = |(ids, &version): (_, &u64)| selection(ids, version);
        let batch: Vec<SelectedIds<'_>> =
            ids.iter().map(|ids: &Vec<u32>| &ids[..]).zip(&versions).map(of).collect();
        n_known += batch.iter().filter(|selection| kept.known(selection).is_some()).count();
        let places = kept.place(&device, &batch).unwrap();
        for (selection, at) in batch.iter().zip(places) {
            let got: Vec<u32> = kept.read(at, selection.ids.len());
            assert_eq!(got, selection.ids, "step {step}, version {}", selection.version);
        }
        let last = contents(3).last().copied();
        assert_eq!(kept.known(&selection(&contents(3), 3)), Some(last));
        assert_eq!(kept.known(&selection(&contents(0), 0)), None, "no version is never known");
    }
    assert!(n_known > 1000, "{n_known}");

    // Two selections fit in 1024 ids. The third evicts the least recently used, the first.
    let mut kept = Selections::with_max(1024);
    let ids: Vec<u32> = (0..400).collect();
    let version = |version| selection(&ids, version);
    for at in [1, 2, 1, 2] {
        kept.place(&device, &[version(at)]).unwrap();
    }
    assert!(kept.known(&version(1)).is_some() && kept.known(&version(2)).is_some());
    kept.place(&device, &[version(3)]).unwrap();
    assert!(kept.known(&version(1)).is_none() && kept.known(&version(2)).is_some());
    // A batch may need more room than the maximum.
    let all: Vec<u64> = (4..10).collect();
    let batch: Vec<SelectedIds<'_>> = all.iter().map(|&at| version(at)).collect();
    kept.place(&device, &batch).unwrap();
    assert!(batch.iter().all(|selection| kept.known(selection).is_some()));
}
