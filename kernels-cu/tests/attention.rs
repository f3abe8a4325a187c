//! Attention on the emulation: against float64, and with the same bits for a row in every division of the work.

#[path = "attention/calls.rs"]
mod calls;
#[path = "attention/reference.rs"]
mod reference;
#[path = "attention/world.rs"]
mod world;

use calls::{Plan, launch};
use galley_kernels_cu::bindings::{GK_BAD_CALL, gk_attention, gk_unit};
use std::process::Command;
use world::{Data, PERIOD, Random, Rows, Selected, Shape, World};

/// Units of every size, some of which fold and some of which are split.
const PLANS: [Plan; 6] = [
    Plan::new(16, false),
    Plan::new(32, false),
    Plan::new(64, false),
    Plan::new(16, true),
    Plan::new(64, true),
    Plan { queries_per_unit: 32, step: 11, split: true },
];

fn check(world: &mut World, batch: &[Rows], plan: Plan) {
    let out = world.attend(batch, plan);
    let worst = world.worst_error(batch, &out);
    assert!(
        worst <= 1.0,
        "{worst} × the error that rounding allows: {:?} {plan:?} {batch:?}",
        world.shape
    );
}

#[test]
fn decodes_verifications_and_prompts_agree_with_float64() {
    // Query heads a KV head: 1, 2, 3, 4, 7, 8, and 40, more than a unit holds here.
    let shapes = [
        Shape::new(2, 2, 16),
        Shape::new(4, 2, 24),
        Shape { block_size: 32, ..Shape::new(3, 1, 32) },
        Shape::new(4, 1, 64),
        Shape { draft_layouts: 3, ..Shape::new(14, 2, 80) },
        Shape { block_size: 48, ..Shape::new(8, 1, 96) },
        Shape { draft_layouts: 2, ..Shape::new(4, 2, 128) },
        Shape::new(2, 1, 200),
        Shape { block_size: 32, ..Shape::new(2, 1, 256) },
        Shape::new(40, 1, 32),
    ];
    for (i, shape) in shapes.into_iter().enumerate() {
        let mut world = World::new(shape, &[140, 70, 1, 64, 65], 0, Data::Plain);
        let batch = [
            Rows::full(0, 139, 1),
            Rows::full(1, 67, 3),
            Rows::full(2, 0, 1),
            Rows::full(3, 63, 1),
            Rows::full(4, 57, 8),
        ];
        let plan = PLANS[i % PLANS.len()];
        let queries_per_unit =
            plan.queries_per_unit.min(if shape.head_dim > 128 { 32 } else { 64 });
        check(
            &mut world,
            &batch,
            Plan { queries_per_unit, step: plan.step.min(queries_per_unit), ..plan },
        );
        check(&mut world, &[Rows::full(1, 0, 37)], Plan::new(32, false));
    }
}

#[test]
fn three_partitions_agree_with_float64() {
    let mut world = World::new(Shape::new(4, 2, 64), &[1200], 0, Data::Plain);
    for plan in [PLANS[0], PLANS[3]] {
        check(&mut world, &[Rows::full(0, 1196, 4)], plan);
    }
}

#[test]
fn windows_agree_with_float64() {
    for (window, plan) in [(1, PLANS[0]), (20, PLANS[1]), (100, PLANS[2]), (600, PLANS[3])] {
        let mut world = World::new(Shape::new(4, 2, 32), &[700, 90], window, Data::Plain);
        check(&mut world, &[Rows::full(0, 690, 10), Rows::full(1, 0, 90)], plan);
        let selected = Selected::Tokens(vec![vec![3, 70, 71, 72, 99, 101, 400]]);
        let view = Rows { tail_start: 650, selected, ..Rows::full(0, 696, 3) };
        check(&mut world, &[view], plan);
        let blocks = Selected::Blocks(vec![vec![0, 1, 2, 6, 7, 20, 33]]);
        check(
            &mut world,
            &[Rows { tail_start: 689, selected: blocks, ..Rows::full(0, 690, 4) }],
            plan,
        );
    }
}

#[test]
fn views_agree_with_float64() {
    let shape = Shape::new(6, 2, 64);
    let mut world = World::new(shape, &[420, 300], 0, Data::Plain);
    let mut random = Random::new(5);
    let mut ascending = |n: usize, below: usize| {
        let mut ids: Vec<u32> = (0..below as u32).collect();
        while ids.len() > n {
            ids.remove(random.below(ids.len()));
        }
        ids
    };
    let shared_blocks = Selected::Blocks(vec![ascending(7, 20)]);
    let head_blocks = Selected::Blocks((0..4).map(|_| ascending(5, 20)).collect());
    let shared_tokens = Selected::Tokens(vec![ascending(70, 350)]);
    let head_tokens = Selected::Tokens((0..4).map(|_| ascending(131, 350)).collect());
    for (i, selected) in [Selected::None, shared_blocks, head_blocks, shared_tokens, head_tokens]
        .into_iter()
        .enumerate()
    {
        let view = Rows { tail_start: 350 + 13 * i, selected, ..Rows::full(0, 415, 5) };
        // In a batch with another sequence, which has another view.
        check(&mut world, &[Rows::full(1, 299, 1), view], PLANS[i]);
    }
}

#[test]
fn a_view_without_one_token_is_noticed() {
    let mut world = World::new(Shape::new(4, 2, 64), &[160], 0, Data::Plain);
    let tokens = |ids: &[u32]| Rows {
        tail_start: 100,
        selected: Selected::Tokens(vec![ids.to_vec()]),
        ..Rows::full(0, 159, 1)
    };
    let whole = [tokens(&[3, 17, 40, 41, 77])];
    for short in [tokens(&[3, 17, 41, 77]), Rows { tail_start: 101, ..whole[0].clone() }] {
        let out = world.attend(&[short], PLANS[0]);
        let worst = world.worst_error(&whole, &out);
        assert!(worst > 1.0, "a missing token went unnoticed: {worst}");
    }
}

/// Computes the outputs of the last eight of 1200 positions (three partitions) in many ways.
/// Checks that all of them have the same bits, and returns these.
fn bits_of_rows(shape: Shape, window: usize) -> Vec<Vec<u16>> {
    const LENGTH: usize = 1200;
    const FIRST: usize = LENGTH - 8;
    // A window of whole periods contains each large value together with its opposite.
    let below = if window == 0 { LENGTH / PERIOD * PERIOD } else { LENGTH };
    let mut world = World::new(shape, &[LENGTH, 75, 530], window, Data::Cancelling { below });
    let whole = [Rows::full(0, FIRST, 8)];
    let expected = world.attend(&whole, PLANS[0]);
    let mut compare = |batch: &[Rows], rows: std::ops::Range<usize>, from: usize, plan: Plan| {
        let out = world.attend(batch, plan);
        assert!(out[rows] == expected[from..], "other bits: {shape:?} {plan:?} {batch:?}");
    };
    for plan in PLANS {
        compare(&whole, 0..8, 0, plan);
    }
    // A decode, a verification of three, a chunk of a prompt.
    compare(&[Rows::full(0, LENGTH - 1, 1)], 0..1, 7, PLANS[0]);
    compare(&[Rows::full(0, LENGTH - 1, 1)], 0..1, 7, PLANS[4]);
    compare(&[Rows::full(0, LENGTH - 3, 3)], 0..3, 5, PLANS[5]);
    compare(&[Rows::full(0, LENGTH - 33, 33)], 25..33, 0, PLANS[2]);
    // In a ragged batch, between rows of other sequences.
    let batch = [Rows::full(1, 30, 45), whole[0].clone(), Rows::full(2, 529, 1)];
    compare(&batch, 45..53, 0, PLANS[1]);
    compare(&batch, 45..53, 0, PLANS[3]);
    expected
}

#[test]
fn a_row_has_the_same_bits_however_it_is_computed() {
    bits_of_rows(Shape::new(4, 2, 64), 0);
    bits_of_rows(Shape::new(3, 1, 32), 0);
    // A window that ends within a partition, so that units number their partitions differently.
    bits_of_rows(Shape::new(2, 1, 32), PERIOD);
}

#[test]
fn views_have_the_same_bits_however_they_are_computed() {
    let mut world =
        World::new(Shape::new(4, 2, 32), &[900], 0, Data::Cancelling { below: 4 * PERIOD });
    let selected = Selected::Tokens(vec![(0..800).filter(|id| id % 4 != 1).collect()]);
    let view =
        |first, n| Rows { tail_start: 820, selected: selected.clone(), ..Rows::full(0, first, n) };
    let expected = world.attend(&[view(896, 4)], PLANS[0]);
    for plan in PLANS {
        assert!(world.attend(&[view(896, 4)], plan) == expected, "{plan:?}");
        assert!(world.attend(&[view(899, 1)], plan)[0] == expected[3], "{plan:?}");
    }
}

#[test]
fn partitions_that_start_elsewhere_change_bits() {
    // The same tokens in the same order: as a tail, cut at position 512, and as a selection, cut
    // after 512 tokens. Both are correct, and a comparison of bits must tell them apart.
    for (data, plan) in [
        (Data::Plain, PLANS[0]),
        (Data::Cancelling { below: 4 * PERIOD }, PLANS[0]),
        (Data::Cancelling { below: 4 * PERIOD }, PLANS[3]),
    ] {
        let mut world = World::new(Shape::new(4, 2, 64), &[900], 0, data);
        let tail = [Rows { tail_start: PERIOD, ..Rows::full(0, 899, 1) }];
        let selected = Selected::Tokens(vec![(PERIOD as u32..890).collect()]);
        let list = [Rows { tail_start: 890, selected, ..Rows::full(0, 899, 1) }];
        let (by_position, by_count) = (world.attend(&tail, plan), world.attend(&list, plan));
        assert!(world.worst_error(&tail, &by_position) <= 1.0);
        assert!(world.worst_error(&tail, &by_count) <= 1.0);
        let differ = by_position[0].iter().zip(&by_count[0]).filter(|(a, b)| a != b).count();
        match data {
            Data::Plain => {}
            Data::Cancelling { .. } => assert!(differ > 100, "{differ} of 256 values show it"),
        }
    }
}

/// A hash of all bits, for comparison between processes.
fn digest(rows: &[Vec<u16>]) -> u64 {
    let step = |sum: u64, bits: &u16| (sum ^ u64::from(*bits)).wrapping_mul(0x0100_0000_01b3);
    rows.iter().flatten().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The test below runs this one in processes of its own, because the emulation reads its settings
/// from the environment.
#[test]
fn digest_of_rows() {
    // With head_dim 128, some units get fewer stages on a device with 99 KiB.
    println!("digest {:016x}", digest(&bits_of_rows(Shape::new(2, 1, 128), 3 * PERIOD)));
}

#[test]
fn devices_with_less_shared_memory_compute_the_same_bits() {
    let digest_with = |bytes: Option<u32>| {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
        child.args(["digest_of_rows", "--exact", "--nocapture"]);
        if let Some(bytes) = bytes {
            child.env("GALLEY_EMULATOR_SHARED_BYTES", bytes.to_string());
        }
        let output = child.output().expect("a test can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.split("digest ").find_map(|rest| rest.get(..16)).map(str::to_owned);
        (output.status.success(), found, text)
    };
    let (fine, most, text) = digest_with(None);
    assert!(fine && most.is_some(), "{text}");
    // sm_89 gives a block 99 KiB.
    let (fine, less, text) = digest_with(Some(99 * 1024));
    assert!(fine && less == most, "{less:?} and {most:?}: {text}");
    // The emulation refuses settings below 48 KiB: the variable does reach the child process.
    let (fine, _, text) = digest_with(Some(16 * 1024));
    assert!(!fine, "ran without memory: {text}");
}

/// Runs in a process of its own, as above. A launch accepts units up to `attention_queries`, and no larger ones.
#[test]
fn queries_of_units() {
    let ask = galley_kernels_cu::emulated().attention_queries.expect("a table without holes");
    // SAFETY: the function takes a number and returns one.
    let ask = |head_dim: i32| unsafe { ask(head_dim) };
    println!("queries {} {}, ", ask(128), ask(256));
    for head_dim in [128, 256] {
        let mut world = World::new(Shape::new(2, 1, head_dim as usize), &[20], 0, Data::Plain);
        let mut call = world.empty_call();
        call.n_units = 1;
        let unit = gk_unit {
            seq: 0,
            first_query: 0,
            n_queries: 0, // an empty unit
            partition: 0,
            n_partitions: 0,
            state: -1,
        };
        call.units = &raw const unit;
        for queries_per_unit in [16, 32, 64] {
            call.queries_per_unit = queries_per_unit;
            let fits = queries_per_unit <= ask(head_dim);
            assert_eq!(launch(&call) == 0, fits, "{queries_per_unit} of head_dim {head_dim}");
        }
    }
    assert!(ask(0) < 0 && ask(264) < 0, "no such heads");
}

#[test]
fn units_hold_what_the_device_has_memory_for() {
    for (bytes, queries) in [(227, "64 32"), (99, "64 16"), (64, "16 0")] {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
        child.args(["queries_of_units", "--exact", "--nocapture"]);
        child.env("GALLEY_EMULATOR_SHARED_BYTES", (bytes * 1024).to_string());
        let output = child.output().expect("a test can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{bytes} KiB: {text}");
        assert!(text.contains(&format!("queries {queries}, ")), "{bytes} KiB: {text}");
    }
}

type Spoil = fn(&mut gk_attention);

#[test]
fn calls_that_do_not_fit_together_are_refused() {
    let mut world = World::new(Shape::new(4, 2, 64), &[20], 0, Data::Plain);
    let call = world.empty_call();
    assert_eq!(launch(&call), 0, "the call that is spoilt below is fine");
    let spoilt: [(&str, Spoil); 16] = [
        ("head_dim 0", |c| c.kv.head_dim = 0),
        ("head_dim 12", |c| c.kv.head_dim = 12),
        ("head_dim 264", |c| c.kv.head_dim = 264),
        ("block_size 8", |c| c.kv.block_size = 8),
        ("heads that do not divide", |c| c.n_heads = 5),
        ("no KV head", |c| c.kv.n_kv_heads = 0),
        ("a layer too many", |c| c.kv.layer = c.kv.n_layers),
        ("queries_per_unit 48", |c| c.queries_per_unit = 48),
        ("64 queries of head_dim 136", |c| (c.kv.head_dim, c.queries_per_unit) = (136, 64)),
        ("q_stride below the columns", |c| c.q_stride = 192),
        ("out_stride off the step", |c| c.out_stride = 264),
        ("scale 0", |c| c.scale = 0.0),
        ("scale NaN", |c| c.scale = f32::NAN),
        ("window -1", |c| c.window = -1),
        ("units without a list", |c| c.n_units = 1),
        ("merges without states", |c| c.n_merges = 1),
    ];
    for (defect, spoil) in spoilt {
        let mut call = call;
        spoil(&mut call);
        assert_eq!(launch(&call), GK_BAD_CALL, "{defect}");
    }
    let mut nothing = call;
    nothing.batch.n_rows = 0;
    assert_eq!(launch(&nothing), 0);
}
