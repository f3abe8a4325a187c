//! Observation on the emulation: sums against float64, selections against sorting, and the same bits beside any other
//! observations.

mod observed;
mod paged;

use galley_kernels_cu::bindings::*;
use observed::{Answer, LAYER, SelectionCase, World, are_close, highest};
use paged::{NAN, Numbers, from_bf16, to_bf16};

#[test]
fn sums_agree_with_float64_and_selections_with_sorting() {
    let mut numbers = Numbers(11);
    for shape in
        [(3, 1, 64), (4, 4, 16), (6, 2, 24), (7, 1, 128), (4, 1, 32), (2, 1, 80), (2, 1, 200)]
    {
        let len = 270 + numbers.below(60);
        let mut world = World::new(&mut numbers, shape, &[len, 130]);
        let block = world.block_size();
        let base = SelectionCase::new(0, 1, 5..257, 40);
        let blocks = SelectionCase {
            is_blocks: true,
            ..SelectionCase::new(0, 1, block..240 / block * block, 3)
        };
        let many = SelectionCase { n_rows: 13, ..base.clone() };
        for (window, selection_cases) in [
            (
                0,
                vec![
                    base.clone(),
                    SelectionCase { n_selected: 252, ..base.clone() },
                    SelectionCase::new(1, 2, 64..64, 0),
                ],
            ),
            (
                0,
                vec![
                    many.clone(),
                    SelectionCase { pool: GK_POOL_AVERAGE, pool_width: 7, ..many.clone() },
                ],
            ),
            (
                0,
                vec![
                    SelectionCase {
                        pool: GK_POOL_MAX,
                        pool_width: 5,
                        n_selected: 41,
                        ..base.clone()
                    },
                    blocks.clone(),
                ],
            ),
            (
                150,
                vec![
                    SelectionCase { n_rows: 3, ..base },
                    SelectionCase { n_rows: 9, ..blocks },
                    many,
                ],
            ),
        ] {
            let answers = world.ask(&[20, 2], &selection_cases, window);
            for (selection_case, answer) in selection_cases.iter().zip(&answers) {
                for (head, (sums, ids)) in answer.iter().enumerate() {
                    let case = format!("{shape:?} {window} {selection_case:?} {head}");
                    assert!(are_close(sums, &world.sums(selection_case, window, head)), "{case}");
                    assert_eq!(*ids, highest(sums, selection_case, block), "{case}");
                }
            }
            // Controls: one row more, another window, another number of ids.
            let (selection_case, (sums, ids)) = (&selection_cases[0], &answers[0][0]);
            let other =
                SelectionCase { n_rows: selection_case.n_rows + 1, ..selection_case.clone() };
            assert!(!are_close(sums, &world.sums(&other, window, 0)));
            assert!(!are_close(sums, &world.sums(selection_case, 120, 0)));
            let other = SelectionCase {
                n_selected: selection_case.n_selected - 1,
                ..selection_case.clone()
            };
            assert_ne!(*ids, highest(sums, &other, block));
        }
    }
}

#[test]
fn what_a_row_observes_is_its_own_affair() {
    let mut numbers = Numbers(12);
    let mut world = World::new(&mut numbers, (4, 2, 32), &[150, 2300, 333]);
    let few = SelectionCase::new(2, 3, 1..300, 50);
    let many = SelectionCase {
        pool: GK_POOL_AVERAGE,
        pool_width: 5,
        ..SelectionCase::new(2, 12, 17..300, 60)
    };
    let long = SelectionCase {
        pool: GK_POOL_MAX,
        pool_width: 3,
        ..SelectionCase::new(1, 1, 0..2299, 700)
    };
    let alone: Vec<_> = [&few, &many, &long]
        .map(|selection_case| {
            world.ask(&[1, 1, 20], std::slice::from_ref(selection_case), 0).remove(0)
        })
        .into();
    for (selection_case, answer) in [&few, &many, &long].iter().zip(&alone) {
        for (head, (sums, ids)) in answer.iter().enumerate() {
            assert!(are_close(sums, &world.sums(selection_case, 0, head)), "{selection_case:?}");
            assert_eq!(*ids, highest(sums, selection_case, world.block_size()));
        }
    }
    // In one call with other observations, in another order, and with other rows before theirs in the batch.
    let others = [SelectionCase::new(0, 20, 0..99, 7), long, many, few.clone()];
    let together = world.ask(&[33, 4, 40], &others, 0);
    assert!(together[1..] == [alone[2].clone(), alone[1].clone(), alone[0].clone()]);
    // With fewer candidates, the sums of the remaining candidates are the same.
    let fewer = SelectionCase { candidates: 64..200, ..few.clone() };
    let answer = world.ask(&[1, 1, 3], &[fewer], 0).remove(0);
    for ((sums, _), (all, _)) in answer.iter().zip(&alone[0]) {
        assert_eq!(sums[..], all[63..199]);
    }
    // Controls: a window that hides one position from one row, and one bit of a key that is no candidate, change sums.
    let sums_of = |answer: &Answer| answer[0].0.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let windowed = world.ask(&[1, 1, 3], std::slice::from_ref(&few), 332).remove(0);
    assert_ne!(sums_of(&windowed)[20..], sums_of(&alone[0])[20..]);
    let size = world.block_size();
    let at = world.pool.key_at(LAYER, 0, world.tables[2][329 / size] as usize * size + 329 % size);
    world.pool.memory[at] ^= 0x40;
    let changed = world.ask(&[1, 1, 3], std::slice::from_ref(&few), 0).remove(0);
    assert_ne!(sums_of(&changed), sums_of(&alone[0]));
    assert_eq!(changed[1], alone[0][1], "the other head does not see it");
}

#[test]
fn ties_go_to_the_lower_position() {
    let mut numbers = Numbers(13);
    let mut world = World::new(&mut numbers, (4, 2, 16), &[1300]);
    // The rows see no position before 1271, so most or all of the candidates score 0.
    let nothing = SelectionCase::new(0, 2, 32..1240, 5);
    let some = SelectionCase::new(0, 2, 3..1290, 70);
    let answers = world.ask(&[2], &[nothing, some], 28);
    for (_, ids) in &answers[0] {
        assert_eq!(*ids, [32, 33, 34, 35, 36]);
    }
    for (sums, ids) in &answers[1] {
        let n_seen = sums.iter().filter(|&&x| x > 0.0).count();
        assert_eq!(n_seen, 1290 - (1298 - 27));
        let expected: Vec<u32> = (3..3 + 70 - n_seen as u32).chain(1271..1290).collect();
        assert_eq!(*ids, expected);
    }
    // Equal keys have equal scores, and the threshold is one of these scores.
    let first = world.key(0, 0, 0).to_vec();
    let size = world.block_size();
    for position in 0..1300 {
        let slot = world.tables[0][position / size] as usize * size + position % size;
        let at = world.pool.key_at(LAYER, 0, slot);
        let factor = if position % 3 == 0 { 1.0 } else { 0.0 };
        for (to, &x) in world.pool.memory[at..].iter_mut().zip(&first) {
            *to = to_bf16(from_bf16(x) * factor);
        }
    }
    let selection_case = SelectionCase::new(0, 1, 1..1290, 600);
    let (sums, ids) = world.ask(&[1], std::slice::from_ref(&selection_case), 0).remove(0).remove(0);
    let mut values: Vec<_> = sums.iter().map(|x| x.to_bits()).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 2);
    assert_eq!(ids, highest(&sums, &selection_case, size));
    let mut other = ids;
    other[599] += 1;
    assert_ne!(other, highest(&sums, &selection_case, size), "control");
}

#[test]
fn impossible_observations_are_refused() {
    let mut numbers = Numbers(14);
    let mut world = World::new(&mut numbers, (4, 2, 16), &[100]);
    let selection_case = SelectionCase::new(0, 2, 0..96, 4);
    assert!(world.ask_as(&[2], std::slice::from_ref(&selection_case), 0, &|_, _| {}).is_ok());
    assert!(world.pool.memory.contains(&NAN), "values and other layers were never there");
    type Change<'a> = &'a dyn Fn(&mut gk_observation, &mut gk_observe);
    let changes: [(&str, Change<'_>); 14] = [
        ("a sequence that is not there", &|o, _| o.seq = 1),
        ("no rows", &|o, _| o.n_rows = 0),
        ("candidates after the last position", &|o, _| o.n_candidates = 101),
        ("candidates before the first", &|o, _| o.first_candidate = -1),
        ("too few candidates", &|o, _| o.n_candidates = 3),
        ("another granularity", &|o, _| o.granularity = 8),
        ("a part of a block", &|o, call| {
            o.granularity = call.kv.block_size;
            o.first_candidate = 1;
        }),
        ("pooled blocks", &|o, call| {
            o.granularity = call.kv.block_size;
            (o.n_selected, o.pool, o.pool_width) = (1, GK_POOL_MAX as i32, 3);
        }),
        ("an even window", &|o, _| (o.pool, o.pool_width) = (GK_POOL_AVERAGE as i32, 4)),
        ("another pooling", &|o, _| (o.pool, o.pool_width) = (3, 3)),
        ("scores that are not aligned", &|o, _| o.scores = 2),
        ("heads that do not divide", &|_, call| call.n_heads = 3),
        ("a layer that is not there", &|_, call| call.kv.layer = 3),
        ("a stride that is no operand's", &|_, call| call.q_stride = 72),
    ];
    for (case, change) in changes {
        let answer = world.ask_as(&[2], std::slice::from_ref(&selection_case), 0, change);
        assert_eq!(answer, Err(GK_BAD_CALL), "{case}");
    }
}
