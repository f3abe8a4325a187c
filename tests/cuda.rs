//! The tests that every backend must pass, on the CUDA backend, emulated and on a GPU.
//!
//! Without features there is nothing to run. With `emulate`, kernels run on the CPU, on small cases
//! because the emulation is slow. With `cuda`, and a GPU's number in `GALLEY_TEST_GPU`, everything
//! runs on that GPU to the same extent as on the CPU.
#![cfg(any(feature = "cuda", feature = "emulate"))]

use galley_engine::{DraftConfig, Request};
use galley_model::Device;
use galley_tests::failing::assert_the_others_go_on;
use galley_tests::plugins::{TARGET_DRAFTERS, drafting, second_model};
use galley_tests::runs::{Alteration, Altered, Setup, alone, open, run};
use galley_tests::same_bytes::{Extent, assert_same_bytes, chaotic, extent_requests, with_drafts};
use galley_tests::{
    QUANTISED, TINY_MODELS, argmax, load_tiny, references, relative_error, run_prompt,
};

/// The devices of this build and machine, and how much to run on each.
fn devices() -> Vec<(Device, Extent)> {
    [
        #[cfg(feature = "emulate")]
        Some((emulated(), Extent::Small)),
        #[cfg(feature = "cuda")]
        galley_tests::gpu().map(|gpu| (gpu, Extent::Full)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(feature = "emulate")]
fn emulated() -> Device {
    use galley_backend::cuda::{CudaConfig, CudaDevice};
    CudaConfig::new(CudaDevice::Emulated).into()
}

#[test]
fn logits_agree_with_transformers() {
    for (device, _) in devices() {
        // Devices without kernels for quantised weights expand them.
        for (model, reference) in TINY_MODELS.into_iter().chain([QUANTISED]) {
            let mut loaded = load_tiny(model, device);
            let mut worst = 0.0_f32;
            for reference in references(reference) {
                let logits = run_prompt(&mut *loaded, &reference.tokens, 32);
                for (&position, expected) in reference.positions.iter().zip(&reference.logits) {
                    worst = worst.max(relative_error(expected, &logits[position as usize]));
                }
            }
            println!("{model:14} {worst:.1e}");
            assert!(worst < 0.05, "{model}: {worst}");
        }
    }
}

#[test]
fn greedy_continuations_agree_with_transformers() {
    for (device, _) in devices() {
        for (model, reference) in TINY_MODELS {
            let mut loaded = load_tiny(model, device);
            for reference in references(reference) {
                let known = [&reference.tokens[..], &reference.greedy].concat();
                let logits = run_prompt(&mut *loaded, &known, 128);
                for (i, &expected) in reference.greedy.iter().enumerate() {
                    let likeliest = argmax(&logits[reference.tokens.len() - 1 + i]);
                    assert_eq!(likeliest, expected, "{model}, {i} tokens after the prompt");
                }
            }
        }
    }
}

#[test]
fn output_does_not_depend_on_the_schedule() {
    for (device, extent) in devices() {
        for model in ["llama3", "mistral", "odd"] {
            let base = Setup { device, ..alone() };
            let plain = open(model, &base);
            let requests = extent_requests(extent, &plain.0.target().config);
            let (expected, _) = run(plain, &base.config, &requests, false);
            for seed in 0..2 {
                let setup = chaotic(seed, device);
                let (got, _) = run(open(model, &setup), &setup.config, &requests, true);
                assert_eq!(expected, got, "{model}, schedule {seed}");
            }
        }
    }
}

/// The negative control: the comparison must notice chunks that attend to fewer tokens than
/// decodes.
#[test]
fn chunks_that_see_less_are_noticed() {
    for (device, extent) in devices() {
        // Small chunks, because `Altered` leaves the first chunk of a prompt unchanged.
        let config = alone().config.max_num_batched_tokens(64);
        let base = Setup { device, config, ..alone() };
        let plain = open("llama3", &base);
        let requests = extent_requests(extent, &plain.0.target().config);
        let (expected, _) = run(plain, &base.config, &requests, false);
        let (model, tokenizer) = open("llama3", &base);
        let shuffled = (Box::new(Altered(model, Alteration::FewerTokens)) as _, tokenizer);
        let (got, _) = run(shuffled, &base.config, &requests, true);
        assert!(expected != got, "the same bytes");
    }
}

#[test]
fn output_does_not_depend_on_the_drafter() {
    for (device, extent) in devices() {
        assert_same_bytes("llama3", extent, |_| device, TARGET_DRAFTERS);
    }
}

#[test]
fn output_does_not_depend_on_a_second_model() {
    for (device, extent) in devices() {
        for (target, draft, more) in [
            // Two of its blocks fit into one block of the target.
            ("llama3", "mistral", ""),
            // Heads of another size, and a larger vocabulary than the target's.
            ("qwen3", "odd", ",sinks=0,budget=40"),
        ] {
            let options = second_model(draft, more);
            assert_same_bytes(target, extent, |_| device, [("small-model", options.as_str())]);
        }
    }
}

/// Any call may fail on a device that works beside the host: the other requests must give their
/// expected output.
#[test]
fn case_20_a_step_that_fails_beside_the_host() {
    for (device, extent) in devices() {
        let base = Setup { device, ..alone() };
        let plain = open("llama3", &base);
        let short = |request: Request| request.max_tokens(6);
        // Penalties and log-probabilities keep the engine from running ahead of the device.
        let alone_ahead = |mut request: Request| {
            request.sampling.logprobs = None;
            let request = short(request).repetition_penalty(1.0).presence_penalty(0.0);
            request.frequency_penalty(0.0).n(1)
        };
        let requests = extent_requests(extent, &plain.0.target().config);
        let ahead: Vec<Request> = requests.iter().cloned().map(alone_ahead).collect();
        let requests: Vec<Request> = requests.into_iter().map(short).collect();
        let (expected, _) = run(plain, &base.config, &requests, false);
        let (expected_ahead, _) = run(open("llama3", &base), &base.config, &ahead, false);
        let n_runs = if extent == Extent::Full { 60 } else { 4 };
        let setup = chaotic(0, device);
        let none = DraftConfig::default();
        let second = second_model("llama3", "");
        let small_model = drafting("small-model", &second);
        let snap_kv = drafting("snap-kv", "budget=96,queries=8,refresh=16");
        for (drafting, requests, expected) in [
            (&none, &ahead, &expected_ahead),
            (&small_model, &with_drafts(&requests), &expected),
            (&snap_kv, &with_drafts(&requests), &expected),
        ] {
            let counts =
                assert_the_others_go_on("llama3", &setup, drafting, requests, expected, n_runs);
            println!("{counts:?} requests yielded their tokens and then failed");
        }
    }
}
