//! Row invariance over all numbers of rows. Kernels take rows in tiles of several sizes, and every
//! number of rows leaves a different remainder.

use super::*;
use simd::{Bf16, Element, Isa, LANES};

/// Largest number of rows to try: more than three tiles of AVX2, and more than one of AVX-512.
const MOST_ROWS: usize = 20;

#[test]
fn products_of_any_number_of_rows_have_the_same_bits() {
    let mut values = Values(7);
    for (outputs, inputs) in [(70, 96), (33, 31), (16, 2), (40, 129)] {
        let x = values.take(MOST_ROWS * inputs);
        let w = values.take(outputs * inputs);
        let bias = values.take(outputs);
        let expected = product(&x, &w, inputs);
        for mut backend in backends() {
            let ws = load(&mut backend, outputs, inputs, &w);
            let fill =
                |row: usize, out: &mut [f32]| out.copy_from_slice(&w[row * inputs..][..inputs]);
            let gated = backend.load_gated(outputs, inputs, &fill, &fill).unwrap();
            let bias_vector = backend.load_vector(&bias).unwrap();
            // The results of all products of `rows`: stored with bias and then added to, and gated.
            let mut all = |rows: &[f32]| -> Vec<(Vec<f32>, Vec<f32>)> {
                let n = rows.len() / inputs;
                let xs = operand(&mut backend, rows, inputs);
                let mut out = backend.f32_rows(n, outputs).unwrap();
                backend.linear(&xs, n, &ws, Some(&bias_vector), &mut out).unwrap();
                backend.linear_add(&xs, n, &ws, &mut out).unwrap();
                let mut silu = backend.operand_rows(n, outputs).unwrap();
                backend.linear_silu_mul(&xs, n, &gated, &mut silu).unwrap();
                (0..n).map(|r| (out.f32_row(r).to_vec(), backend.read(&silu, r))).collect()
            };
            let alone: Vec<_> = x.chunks(inputs).flat_map(&mut all).collect();
            // All rows differ from their neighbours, so that a misplaced row is noticed.
            assert!(alone.windows(2).all(|pair| pair[0] != pair[1]));
            for n in 2..=MOST_ROWS {
                let together = all(&x[..n * inputs]);
                assert!(together == alone[..n], "{} {n} rows", backend.description());
            }
            let twice = |i: usize, e: &f64| 2.0 * e + f64::from(bias[i % outputs]);
            let expected: Vec<f64> =
                expected.iter().enumerate().map(|(i, e)| twice(i, e)).collect();
            let got: Vec<f32> = alone.iter().flat_map(|(out, _)| out.clone()).collect();
            assert_close(
                &backend.description(),
                &expected,
                &got,
                tolerance(backend.formats.operands),
            );
        }
    }
}

#[test]
fn attention_of_any_number_of_rows_has_the_same_bits() {
    let mut values = Values(8);
    // Groups of one to seven query heads, and head sizes with and without a partial vector.
    for shape in [(1, 1, 40), (2, 1, 64), (3, 1, 64), (4, 1, 128), (5, 1, 24), (7, 1, 16)] {
        let first = 150;
        let chunks: Vec<usize> = std::iter::once(first).chain(1..=MOST_ROWS).collect();
        let len: usize = chunks.iter().sum();
        assert!(len > 256 + MOST_ROWS, "a tile ends within a chunk");
        let singles: Vec<usize> =
            std::iter::once(first).chain(std::iter::repeat_n(1, len - first)).collect();
        let cache = Cache::new(&mut values, shape, len);
        let ids: Vec<u32> = (0..first as u32).step_by(3).collect();
        let tail_start = first as u32;
        let chosen = Selected::Tokens(SelectedIds::everywhere(&ids));
        for view in [KvView::default(), KvView { selected: chosen, tail_start }] {
            for mut backend in backends() {
                let together = cache.run(&mut backend, &chunks, view, None);
                let alone = cache.run(&mut backend, &singles, view, None);
                let case = format!("{} {shape:?} {view:?}", backend.description());
                assert!(together == alone, "{case}");
                assert!(alone.windows(2).all(|pair| pair[0] != pair[1]), "{case}");
                let p = len - 1;
                let seen = |at: usize| match view.selected {
                    Selected::None => true,
                    _ => at >= first || at.is_multiple_of(3),
                };
                let expected = cache.expected(p, |_, at| seen(at));
                assert_close(
                    &case,
                    &expected,
                    &alone[p],
                    attention_tolerance(backend.formats.operands),
                );
            }
        }
    }
}

/// Compares products of `R` rows by `N` vectors of words: `dots` with multipliers, and `dot` with
/// words.
///
/// # Safety
///
/// The CPU must have the instruction set.
unsafe fn same_products<I: Isa, const R: usize, const N: usize>(values: &mut Values) {
    const WORDS: usize = 5;
    let mut words = |n: usize| -> Vec<u32> {
        let pair = |_| u32::from(simd::bf16_bits(values.next())) | values.next().to_bits();
        (0..n).map(pair).collect()
    };
    let (w, x) = (words(WORDS * N * LANES), words(WORDS * R));
    let mut multipliers = vec![0; 2 * WORDS * R];
    // SAFETY: every index lies in the vectors; the caller guarantees the rest.
    unsafe {
        let x: [*const u32; R] = std::array::from_fn(|r| x.as_ptr().add(r * WORDS));
        let m: [*const u32; R] = std::array::from_fn(|r| {
            let to = multipliers.as_mut_ptr().add(2 * WORDS * r);
            if Bf16::expands::<I>() {
                Bf16::expand(x[r], WORDS, to);
            } else {
                x[r].copy_to(to, WORDS);
            }
            to.cast_const()
        });
        let mut sums = [[I::splat(0.0); N]; R];
        let mut expected = sums;
        for k in 0..WORDS {
            let w: [*const u32; N] = std::array::from_fn(|n| w.as_ptr().add((k * N + n) * LANES));
            Bf16::dots::<I, R, N>(&mut sums, w, m, k);
            for r in 0..R {
                for n in 0..N {
                    let (w, x) = (I::load_words(w[n]), I::splat_word(*x[r].add(k)));
                    expected[r][n] = Bf16::dot::<I>(expected[r][n], w, x);
                }
            }
        }
        let lanes = |v: I::F| {
            let mut lanes = [0.0_f32; LANES];
            I::store(lanes.as_mut_ptr(), v);
            lanes.map(f32::to_bits)
        };
        for (sums, expected) in sums.into_iter().zip(expected) {
            assert_eq!(sums.map(lanes), expected.map(lanes), "{R} rows by {N}");
        }
    }
}

/// Expansion changes no bit, neither of products nor of values that are rounded to bf16 and stay f32.
///
/// # Safety
///
/// The CPU must have the instruction set.
unsafe fn expanding_changes_no_bit<I: Isa>() {
    let mut values = Values(9);
    // SAFETY: the caller vouches for the instruction set; arrays hold whole vectors.
    unsafe {
        same_products::<I, 1, 1>(&mut values);
        same_products::<I, 1, 4>(&mut values);
        same_products::<I, 2, 2>(&mut values);
        same_products::<I, 3, 2>(&mut values);
        same_products::<I, 5, 1>(&mut values);
        same_products::<I, 6, 1>(&mut values);
        // Ties in both directions and numbers around them; the largest and the smallest normal number.
        let mut numbers = vec![1.0, f32::MAX, f32::MIN_POSITIVE, 0.0, f32::INFINITY];
        for bits in [0x3f80_8000_u32, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x3fff_8000] {
            numbers.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
        }
        numbers.resize(LANES, 0.3);
        let (mut stored, mut kept) = ([0_u16; LANES], [0.0_f32; LANES]);
        I::store_bf16(stored.as_mut_ptr(), I::load(numbers.as_ptr()));
        I::store(kept.as_mut_ptr(), I::round_bf16(I::load(numbers.as_ptr())));
        assert_eq!(stored.map(|x| u32::from(x) << 16), kept.map(f32::to_bits));
        assert_ne!(kept.as_slice(), numbers, "something was rounded");
    }
}

#[test]
fn expanded_multipliers_change_no_bit() {
    // SAFETY: portable code runs on every CPU.
    unsafe { expanding_changes_no_bit::<simd::Portable>() };
    #[cfg(target_arch = "x86_64")]
    for isa in float_instruction_sets() {
        // SAFETY: `is_available` has checked the instruction set.
        unsafe {
            match isa {
                InstructionSet::Avx512Bf16 => expanding_changes_no_bit::<simd::Avx512Bf16>(),
                InstructionSet::Avx512 => expanding_changes_no_bit::<simd::Avx512>(),
                InstructionSet::Avx2 => expanding_changes_no_bit::<simd::Avx2>(),
                _ => {}
            }
        }
    }
}
