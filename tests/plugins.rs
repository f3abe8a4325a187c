//! Galley's own drafters, built for the profile of the tests.

use crate::data;
use galley_engine::drafters::Library;
use galley_engine::{DraftConfig, DrafterSetup};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Drafters that need only the target, with options that fit tiny models.
pub const TARGET_DRAFTERS: [(&str, &str); 11] = [
    ("ngram", "min=1,factor=8,min-probability=0"),
    ("ngram", "min=1,factor=8,min-probability=0,memory=on"),
    ("streaming-llm", "budget=64"),
    ("streaming-llm", "budget=48,sinks=0,skip=1"),
    ("snap-kv", "budget=96,queries=8,refresh=16"),
    ("snap-kv", "budget=80,queries=4,refresh=0,pooling=max"),
    ("self-spec", "budget=128,recent=16"),
    ("self-spec", "budget=96,recent=16,refresh=2"),
    ("layer-skip", "attention=1,mlp=0"),
    ("layer-skip", "mode=exit,exit=1"),
    ("layer-skip", "mode=search,sinks=16,budget=64"),
];

/// Builds the drafters once a process, unless they were carried here, and returns their folder.
/// Usually cargo has built them before and finds nothing to do.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(root) = crate::carried() {
            return root.join("bin");
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--locked"]);
        let program = std::env::current_exe().expect("a program has a path");
        // target/PROFILE/deps/a-test, or target/PROFILE/a-program
        let mut folders = program.ancestors().skip(1).filter(|folder| !folder.ends_with("deps"));
        let folder = folders.next().expect("a program is in target/PROFILE");
        let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
        build.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
        for name in TARGET_DRAFTERS.map(|(name, _)| name).into_iter().chain(["small-model"]) {
            build.args(["--package", &format!("galley-drafter-{name}")]);
        }
        assert!(build.status().expect("cargo runs").success(), "the drafters build");
        folder.to_path_buf()
    })
}

/// One of Galley's own drafters; `options` has the form `key=value,key=value`.
pub fn setup(name: &str, options: &str) -> DrafterSetup {
    let file = format!(
        "{}galley_drafter_{}{}",
        std::env::consts::DLL_PREFIX,
        name.replace('-', "_"),
        std::env::consts::DLL_SUFFIX
    );
    let library = Library::open(&folder().join(file)).expect("a drafter that was built");
    let pairs = options.split(',').filter_map(|pair| pair.split_once('='));
    let options: BTreeMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    DrafterSetup::new(library, options)
}

/// A drafting configuration with one drafter.
pub fn drafting(name: &str, options: &str) -> DraftConfig {
    DraftConfig::default().drafters(vec![setup(name, options)])
}

/// Options of `small-model`: a tiny draft model, followed by `more` options.
pub fn second_model(draft_model: &str, more: &str) -> String {
    format!("model={}{more}", data("models").join(draft_model).display())
}
