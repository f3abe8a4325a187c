//! The soak finds nothing if nothing is wrong, finds deliberate faults, and covers every setting.

use galley_engine::{SchedulePolicy, Verify};
use galley_tests::data;
use galley_tests::soak::dimensions::{CONSTANT, Job, Workload};
use galley_tests::soak::drafters::DRAFTERS;
use galley_tests::soak::{Control, Report, Soak, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

const SEED: u64 = 11;

/// Runs workloads of tiny models until `is_enough`.
fn soak(seed: u64, control: Option<Control>, is_enough: impl FnMut(&Report) -> bool) -> Report {
    println!("seed {seed}");
    Soak { seed, targets: Target::tiny(), only: None, control }.run(is_enough)
}

#[test]
fn a_short_soak_finds_nothing() {
    let report = soak(SEED, None, |report| report.n_workloads == 40);
    println!("{report}");
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(report.n_resumed > 50, "{report}");
    assert!(report.n_comparisons > 100 && report.n_by_rejection > 5, "{report}");
    assert!(report.n_preemptions > 100 && report.n_prefix_hits > 30, "{report}");
    assert!(report.n_draft_prefix_hits > 30, "{report}");
    assert!(report.n_accepted > 100 && report.n_drafted > report.n_accepted + 100, "{report}");
}

#[test]
fn a_wrong_order_of_summation_is_found() {
    let enough = |report: &Report| report.n_differences > 0 || report.n_workloads == 30;
    let report = soak(SEED, Some(Control::Sum), enough);
    println!("{report}");
    assert!(report.n_differences > 0, "{report}");
}

#[test]
fn a_verifier_that_accepts_a_wrong_guess_in_a_thousand_is_found() {
    let enough = |report: &Report| report.n_differences > 0 || report.n_workloads == 400;
    let report = soak(SEED, Some(Control::Verify), enough);
    println!("{report}");
    assert!(report.n_differences > 0, "{report}");
}

/// A difference can be reproduced by the number of its workload.
#[test]
fn a_workload_follows_from_the_seed_and_its_number() {
    let targets = Target::tiny;
    let soak = |seed| Soak { seed, targets: targets(), only: None, control: None };
    let drawn = |soak: &Soak, number| {
        let (target, workload) = soak.draw(number);
        format!("{} {workload:?}", target.name)
    };
    let (one, two) = (soak(SEED), soak(SEED + 1));
    assert_eq!(drawn(&one, 5), drawn(&soak(SEED), 5));
    assert_ne!(drawn(&one, 5), drawn(&one, 6));
    assert_ne!(drawn(&one, 5), drawn(&two, 5));
}

/// The names of the entries of a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

#[test]
fn every_drafter_and_every_tiny_model_takes_part() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let ships = |name: &String| {
        let manifest = std::fs::read_to_string(plugins.join(name).join("Cargo.toml"));
        // The SDK is left out: it has examples of its own.
        manifest
            .is_ok_and(|text| text.contains("cdylib") && text.contains("name = \"galley-drafter-"))
    };
    let drafters: BTreeSet<String> = names(&plugins).into_iter().filter(ships).collect();
    assert_eq!(drafters, DRAFTERS.iter().map(|name| (*name).to_owned()).collect());
    // A model is an entry of the folder, or a file in a folder of its own.
    let entry = |name: &str| name.split('/').next().expect("a name").to_owned();
    let targets = Target::tiny();
    let models: BTreeSet<String> = targets.iter().map(|target| entry(&target.name)).collect();
    assert_eq!(names(&data("models")), models);
}

/// For every part of a workload, the kind of its value.
fn kinds(target: &Target, workload: &Workload) -> BTreeSet<String> {
    let engine = &workload.engine;
    let mut kinds = BTreeSet::new();
    let mut note = |setting: &str, value: &dyn Debug| {
        kinds.insert(format!("{setting} {value:?}"));
    };
    note("model", &target.name);
    note("arithmetic", &(workload.arithmetic.isa, workload.arithmetic.formats));
    note("weights", &workload.arithmetic.formats.weights);
    note("threads", &workload.n_threads);
    note("block size", &workload.load.block_size);
    note("chunks below a block", &(engine.max_num_batched_tokens < 16));
    note("prefix caching", &engine.prefix_caching);
    note("random schedule", &(engine.policy != SchedulePolicy::Fixed));
    note("waits for drafts", &workload.waits_for_drafts);
    note("engine chooses", &workload.chooses);
    note("costs", &workload.costs);
    note("most between tokens", &workload.max_inter_token_ms);
    note("drafters", &workload.drafters.len());
    workload.drafters.iter().for_each(|(name, _)| note("drafter", name));
    for job in &workload.jobs {
        let request = &job.request;
        note("in bursts", &(job.after_events > 0));
        note("ends", &std::mem::discriminant(&job.end));
        note("prompt", &std::mem::discriminant(&request.prompt));
        note("greedy", &(request.sampling.temperature == 0.0));
        note("top-k", &(request.sampling.top_k > 0));
        note("top-p", &(request.sampling.top_p < 1.0));
        note("min-p", &(request.sampling.min_p > 0.0));
        note("repetition", &(request.sampling.repetition_penalty != 1.0));
        note("presence", &(request.sampling.presence_penalty != 0.0));
        note("frequency", &(request.sampling.frequency_penalty != 0.0));
        note("bias", &request.sampling.logit_bias.is_empty());
        note("n", &(request.n > 1));
        note("logprobs", &request.sampling.logprobs);
        note("unlimited", &request.max_tokens.is_none());
        note("min tokens", &(request.min_tokens > 0));
        note("stops", &request.stop.is_empty());
        note("stop tokens", &request.stop_tokens.is_empty());
        note("include stop", &request.include_stop);
        note("ignore eos", &request.ignore_eos);
        note("priority", &request.priority.signum());
        note("salt", &(request.cache_salt > 0));
        note("chooses", &std::mem::discriminant(&request.drafting.drafter));
        note("length", &request.drafting.draft_length);
        note("budget", &request.drafting.kv_budget.is_some());
        note("verify", &request.drafting.verify);
    }
    kinds
}

/// Fifty workloads, which take about a minute, contain every kind of value.
#[test]
fn a_minute_leaves_nothing_out() {
    let soak = Soak { seed: SEED, targets: Target::tiny(), only: None, control: None };
    let kinds_of = |numbers: std::ops::Range<u64>| -> BTreeSet<String> {
        let drawn = numbers.map(|number| soak.draw(number));
        drawn.flat_map(|(target, workload)| kinds(target, &workload)).collect()
    };
    let (some, all) = (kinds_of(0..50), kinds_of(0..2000));
    let rare = ["arithmetic", "threads"];
    let missing: Vec<_> = all
        .difference(&some)
        .filter(|kind| !rare.iter().any(|rare| kind.starts_with(rare)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Every alternative of each choice occurs at least once.
    for (kind, n_alternatives) in [("ends", 3), ("prompt", 3), ("chooses", 4)] {
        let n = all.iter().filter(|name| name.starts_with(kind)).count();
        assert_eq!(n, n_alternatives, "{kind}: {all:?}");
    }
    for pair in ["greedy", "top-k", "top-p", "min-p", "repetition", "presence", "frequency", "bias"]
    {
        assert!(all.contains(&format!("{pair} true")) && all.contains(&format!("{pair} false")));
    }
    assert!(all.contains(&format!("verify {:?}", Verify::Rejection)), "{all:?}");
}

/// The fields of a struct with their values, `Struct.field` and the text of the value.
fn fields(settings: &dyn Debug) -> Vec<(String, String)> {
    let text = format!("{settings:#?}");
    let (name, lines) = text.split_once(" {\n").expect("a struct with fields");
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines.lines() {
        // Fields are indented by four spaces, and the lines of their values by more.
        let field = line.strip_prefix("    ").filter(|rest| rest.starts_with(char::is_alphabetic));
        match field.and_then(|field| field.split_once(": ")) {
            Some((field, value)) => fields.push((format!("{name}.{field}"), value.to_owned())),
            None => fields.last_mut().expect("a field comes first").1.push_str(line),
        }
    }
    fields
}

/// The settings that have the same value in all of the workloads.
fn constant(workloads: impl Iterator<Item = Workload>) -> BTreeSet<String> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for workload in workloads {
        let mut all =
            vec![fields(&workload.load), fields(&workload.engine), fields(&workload.drafting())];
        for Job { request, .. } in &workload.jobs {
            all.extend([fields(request), fields(&request.sampling), fields(&request.drafting)]);
        }
        for (field, value) in all.into_iter().flatten() {
            values.entry(field).or_default().insert(value);
        }
    }
    let same = values.into_iter().filter(|(_, values)| values.len() == 1);
    same.map(|(field, _)| field).collect()
}

/// A new setting is drawn, or is listed as constant.
#[test]
fn every_setting_is_drawn() {
    let soak = Soak { seed: SEED, targets: Target::tiny(), only: None, control: None };
    let drawn = || (0..100).map(|number| soak.draw(number).1);
    let mut expected: BTreeSet<String> = CONSTANT.map(str::to_owned).into();
    assert_eq!(constant(drawn()), expected);
    // The negative control: two settings that are not drawn, as if they were new.
    let undrawn = drawn().map(|mut workload| {
        workload.engine.prefix_caching = true;
        workload.jobs.iter_mut().for_each(|job| job.request.sampling.min_p = 0.0);
        workload
    });
    expected.extend(["EngineConfig.prefix_caching", "SamplingParams.min_p"].map(str::to_owned));
    assert_eq!(constant(undrawn), expected);
}
