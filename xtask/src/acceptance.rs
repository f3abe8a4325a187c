//! Checks of the interfaces to other languages that take too long for CI, or need programs that CI lacks.

use crate::dist::{self, DistArgs};
use crate::model::model;
use crate::shell::{cargo, command, exists, output, root, run as run_command, stage};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// The arguments of `cargo xtask acceptance`.
#[derive(Args, Debug)]
pub(crate) struct AcceptanceArgs {
    /// The part to check.
    part: Part,
    /// Minutes of fuzzing.
    #[arg(long, default_value_t = 10)]
    fuzz_minutes: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Packages, C under valgrind, Node, the cost of the border, and a fuzz target. Needs valgrind, npm and cargo-fuzz.
    Embed,
}

pub(crate) fn run(args: &AcceptanceArgs) -> Result<()> {
    let Part::Embed = args.part;
    dist::run(&DistArgs::all_checked())?;
    let tree = dist::unpacked()?;
    let place = tree.parent().context("the tree is in a folder")?.to_owned();
    stage("C under valgrind", || valgrind(&tree, &place))?;
    stage("Node", || node(&tree, &place))?;
    stage("the cost of the border", || {
        run_command(cargo("bench --locked --package galley-ffi --bench border"))
    })?;
    stage("fuzzing of requests", || fuzz(args.fuzz_minutes))
}

/// Requests of the program under valgrind.
const REQUESTS: &str = r#"[{"prompt": "Once upon a time", "max_tokens": 12, "logprobs": 2},
 {"prompt": "to be or not", "max_tokens": 9, "n": 2, "stop": ["e"]}]"#;

/// Streams the events of two requests under valgrind: no error, and no memory that is lost.
fn valgrind(tree: &Path, place: &Path) -> Result<()> {
    let program = place.join("stream");
    let mut compile = command("cc", ["-std=c11", "-g", "ffi/tests/c/stream.c", "-lgalley", "-o"]);
    compile.arg(&program).arg("-I").arg(tree.join("include")).arg("-L").arg(tree.join("lib"));
    run_command(compile)?;
    let requests = place.join("requests.json");
    fs::write(&requests, REQUESTS)?;
    let path = root().join("tests/data/models/smollm2");
    let settings =
        format!(r#"{{"model": "{}", "kv_cache_tokens": 1024, "threads": 1}}"#, path.display());
    let words =
        ["--quiet", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite"];
    let mut checked = command("valgrind", words);
    checked.arg("--errors-for-leak-kinds=definite").arg(&program).args([&settings, "2"]);
    checked.env("LD_LIBRARY_PATH", tree.join("lib"));
    checked.stdin(Stdio::from(fs::File::open(&requests)?)).stdout(Stdio::null());
    run_command(checked)
}

/// Installs koffi and has the example answer a question.
fn node(tree: &Path, place: &Path) -> Result<()> {
    let folder = place.join("node");
    fs::create_dir_all(&folder)?;
    fs::copy(root().join("examples/node/stream.mjs"), folder.join("stream.mjs"))?;
    let mut install = command("npm", ["install", "--silent", "--prefix"]);
    install.arg(&folder).arg("koffi");
    run_command(install)?;
    let mut program = command("node", [folder.join("stream.mjs")]);
    program.arg(model()?).args(["What is a galley?", "What is a proof sheet?"]);
    program.env("GALLEY_LIBRARY", tree.join("lib/libgalley.so.0"));
    let answers = output(program)?;
    ensure!(answers.matches("\n> ").count() == 2 && answers.len() > 100, "answers: {answers:?}");
    Ok(())
}

/// Runs the fuzz target of requests. A finding stays in `fuzz/artifacts`.
fn fuzz(minutes: u32) -> Result<()> {
    // The cargo of this program's environment is that of the toolchain in use, and knows no `+nightly`.
    let nightly = |words: &str| {
        command("rustup", ["run", "nightly", "cargo", "fuzz"].into_iter().chain(words.split(' ')))
    };
    ensure!(
        exists(nightly("--version")),
        "cargo-fuzz or its toolchain is not installed: rustup toolchain install nightly, cargo install cargo-fuzz"
    );
    // New inputs go to the first folder; the seeds of the repository remain as they are.
    let corpus = "fuzz/corpus/request";
    fs::create_dir_all(root().join(corpus))?;
    let seconds = minutes * 60;
    run_command(nightly(&format!(
        "run request {corpus} fuzz/seeds/request -- -max_total_time={seconds}"
    )))
}
