//! Matrix products, every variant and epilogue: correct, within bounds, and the same bits for a row in every batch.

#[path = "linear/case.rs"]
mod case;

use case::{Case, launch, operands, packed, same_bits};
use galley_kernels_cu::bindings::*;
use std::ptr::{null, null_mut};

/// The launcher's choice, and every variant.
const VARIANTS: std::ops::RangeInclusive<i32> = 0..=GK_LINEAR_VARIANTS as i32;

#[test]
fn products_agree_with_float64() {
    // Rows, inputs, outputs: ragged sizes; a last step of k that is half full (299); a sum longer than the ring (1100).
    for (n_rows, n_in, n_out) in
        [(1, 48, 80), (5, 64, 100), (9, 299, 299), (33, 1100, 72), (70, 128, 288), (131, 80, 132)]
    {
        let case = Case::new(n_rows, n_in, n_out, 7 + n_rows as u64);
        for variant in VARIANTS {
            // A stride that keeps rows at multiples of 16 bytes, and one that does not.
            for out_stride in [n_out.next_multiple_of(4) + 4, n_out + (n_out + 1) % 2] {
                let bias = case.store(true, variant, out_stride);
                case.check_rows(&bias, out_stride, |row, n| {
                    f64::from(case.bias[n]) + case.dot(row, n)
                })
                .unwrap();
                let plain = case.store(false, variant, out_stride);
                case.check_rows(&plain, out_stride, |row, n| case.dot(row, n)).unwrap();

                let mut sum = case.residual(out_stride);
                let old = sum.clone();
                case.launch(GK_ADD, variant, None, &mut sum, out_stride).unwrap();
                let expected = |row, n| f64::from(old[row * out_stride + n]) + case.dot(row, n);
                case.check_rows(&sum, out_stride, expected).unwrap();
            }
        }
    }
}

#[test]
fn gated_products_agree_with_float64() {
    for (n_rows, n_in, n_out) in [(1, 48, 80), (8, 299, 20), (17, 64, 299), (130, 192, 100)] {
        let case = Case::new(n_rows, n_in, n_out, 99 + n_out as u64);
        for variant in VARIANTS {
            case.check_gated(&case.silu_mul(variant, false), false).unwrap();
        }
        let swapped = case.silu_mul(0, true);
        case.check_gated(&swapped, true).unwrap();
        case.check_gated(&swapped, false)
            .expect_err("gate and up in each other's place go unnoticed");
    }
}

/// The control of the comparisons above: one wrong value, or a write beyond the columns, is noticed.
#[test]
fn wrong_values_are_noticed() {
    let case = Case::new(9, 299, 100, 3);
    let out = case.store(true, 0, 104);
    let expected = |row, n| f64::from(case.bias[n]) + case.dot(row, n);
    case.check_rows(&out, 104, expected).unwrap();
    let other_bias = |row, n| expected(row, n) + if n == 99 { 1e-3 } else { 0.0 };
    case.check_rows(&out, 104, other_bias).expect_err("a wrong bias goes unnoticed");
    let mut beyond = out.clone();
    beyond[100] = 0.0;
    case.check_rows(&beyond, 104, expected).expect_err("a write beyond the columns goes unnoticed");
    let shorter = |row: usize, n: usize| {
        expected(row, n) - f64::from(case.x_at(row, 298)) * f64::from(case.w_at(n, 298))
    };
    case.check_rows(&out, 104, shorter).expect_err("a missing product goes unnoticed");
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_variant() {
    const N_ROWS: usize = 300;
    let (n_in, n_out) = (299, 80);
    let case = Case::new(N_ROWS, n_in, n_out, 1);
    let stored = case.store(true, 1, n_out);
    let gated = case.silu_mul(1, false);
    let gated_stride = case.gated_stride();
    let mut added = case.residual(n_out);
    case.launch(GK_ADD, 1, None, &mut added, n_out).unwrap();
    for n_rows in [300, 129, 128, 65, 64, 63, 33, 17, 16, 15, 9, 8, 7, 2, 1] {
        for variant in VARIANTS {
            for first in
                [1, 37, N_ROWS - n_rows].into_iter().filter(|first| first + n_rows <= N_ROWS)
            {
                let part = case.rows(first, n_rows);
                let (here, name) =
                    (first * n_out..(first + n_rows) * n_out, (n_rows, first, variant));
                assert!(
                    same_bits(&part.store(true, variant, n_out), &stored[here.clone()]),
                    "{name:?}"
                );
                let mut sum = case.residual(n_out)[here.clone()].to_vec();
                part.launch(GK_ADD, variant, None, &mut sum, n_out).unwrap();
                assert!(same_bits(&sum, &added[here]), "{name:?}");
                let here = first * gated_stride..(first + n_rows) * gated_stride;
                assert!(part.silu_mul(variant, false) == gated[here], "{name:?}");
            }
        }
    }
}

/// The control: a sum over k in two halves is close, but has other bits on the same data.
#[test]
fn a_sum_in_halves_has_other_bits() {
    let (n_rows, n_in, n_out) = (16, 299, 80);
    let case = Case::new(n_rows, n_in, n_out, 1);
    let whole = case.store(false, 0, n_out);
    let mut halves = case.inputs(0, 128).store(false, 0, n_out);
    case.inputs(128, n_in).launch(GK_ADD, 0, None, &mut halves, n_out).unwrap();
    case.check_rows(&halves, n_out, |row, n| case.dot(row, n)).unwrap();
    let n_other = whole.iter().zip(&halves).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert!(n_other > whole.len() / 10, "{n_other} of {}", whole.len());
    assert!(!same_bits(&whole, &halves));
}

#[test]
fn bad_calls_are_refused() {
    let case = Case::new(3, 48, 80, 5);
    let mut out = vec![0.0; 3 * 80];
    let mut gated = operands(&[0.0; 3 * 128]);
    let (w, x) = (packed(&case.w, 48), operands(&case.x));
    let mut call = case.call(&w, &x, GK_STORE, 0, 80);
    call.out = out.as_mut_ptr();
    call.operand_out = gated.as_mut_ptr().cast();
    let refused = |change: &dyn Fn(&mut gk_linear)| {
        let mut changed = call;
        change(&mut changed);
        launch(&changed) == Err(GK_BAD_CALL)
    };
    assert!(!refused(&|_| ()));
    let changes: [&dyn Fn(&mut gk_linear); 17] = [
        &|call| call.n_rows = -1,
        &|call| call.n_in = 0,
        &|call| call.n_in = 129,
        &|call| call.n_out = 0,
        &|call| call.n_out = i32::MAX,
        &|call| call.x_stride = 65,
        &|call| call.x_stride = 0,
        &|call| call.out_stride = 79,
        &|call| call.epilogue = 3,
        &|call| call.variant = -1,
        &|call| call.variant = GK_LINEAR_VARIANTS as i32 + 1,
        &|call| call.w = null(),
        &|call| call.x = call.x.wrapping_add(1),
        &|call| call.out = null_mut(),
        &|call| (call.epilogue, call.bias) = (GK_ADD as i32, [0.0; 80].as_ptr()),
        &|call| (call.epilogue, call.out_stride) = (GK_SILU_MUL as i32, 80),
        &|call| {
            (call.epilogue, call.out_stride) = (GK_SILU_MUL as i32, 128);
            call.operand_out = call.operand_out.wrapping_add(1);
        },
    ];
    for (i, change) in changes.iter().enumerate() {
        assert!(refused(change), "change {i}");
    }
    assert!(!refused(&|call| (call.n_rows, call.x, call.out) = (0, null(), null_mut())));
}
