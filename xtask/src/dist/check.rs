//! Tests of the packages as their users have them: unpacked in a new place, without PATH and other variables.

use super::tree::{Tree, folder, make_empty};
use crate::shell::{command, output, root, run, stage};
use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Unpacks the tar file, lists the drafters, and compiles and runs a C++ program with the library there.
pub(crate) fn tar(package: &Path, tree: &Tree) -> Result<()> {
    stage("tar file", || {
        let place = place("tar")?;
        let mut unpack = command("tar", ["--extract", "--file"]);
        unpack.arg(package).arg("--directory").arg(&place);
        run(unpack)?;
        let top = place.join(&tree.name);
        all_drafters_are_found(&top.join("bin/galley"), tree)?;
        a_program_answers(&top, &place.join("batch"))
    })
}

/// Compiles the C++ example of the unpacked tree to `program` by the pkg-config file there, and lets it continue a text.
fn a_program_answers(top: &Path, program: &Path) -> Result<()> {
    let mut flags = command("pkg-config", ["--cflags", "--libs", "galley"]);
    flags.env("PKG_CONFIG_PATH", top.join("lib/pkgconfig"));
    let flags = output(flags)?;
    let mut compile = command("c++", ["-std=c++17"]);
    compile
        .arg(top.join("share/doc/galley/examples/cpp/batch.cpp"))
        .arg("-o")
        .arg(program)
        .args(flags.split_whitespace());
    run(compile)?;
    let mut batch = without_variables(program);
    batch
        .arg(root().join("tests/data/models/smollm2"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut batch = batch.spawn().context("the C++ program does not start")?;
    let mut prompts = batch.stdin.take().context("a pipe")?;
    prompts.write_all(b"A galley is\n")?;
    drop(prompts);
    let done = batch.wait_with_output()?;
    ensure!(done.status.success() && !done.stdout.is_empty(), "the C++ program: {}", done.status);
    Ok(())
}

/// Unpacks the Debian package and lists the drafters.
pub(crate) fn debian(package: &Path, tree: &Tree) -> Result<()> {
    stage("Debian package", || {
        let place = place("debian")?;
        let mut unpack = command("dpkg-deb", ["--extract"]);
        unpack.arg(package).arg(&place);
        run(unpack)?;
        all_drafters_are_found(&place.join("usr/bin/galley"), tree)
    })
}

/// Installs the wheel in a new environment and runs the tests of the Python package there.
pub(crate) fn wheel(wheel: &Path) -> Result<()> {
    stage("wheel", || {
        let environment = place("python")?.join("environment");
        let mut create = command("python3", ["-m", "venv"]);
        create.arg(&environment);
        run(create)?;
        let python = environment.join("bin/python");
        let mut install = command(&python.to_string_lossy(), ["-m", "pip", "install", "--quiet"]);
        install.arg(wheel);
        run(install)?;
        let mut tests = without_variables(&python);
        tests.args(["-m", "unittest", "discover", "--start-directory"]);
        tests.arg(root().join("ffi/python/tests"));
        run(tests)
    })
}

/// An empty folder for one test.
fn place(name: &str) -> Result<PathBuf> {
    let place = folder().join("check").join(name);
    make_empty(&place)?;
    Ok(place)
}

/// A program that knows nothing of this shell.
fn without_variables(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    // Tests do not measure the machine: they run side by side.
    command.env("GALLEY_NO_CALIBRATION", "true");
    command
}

/// The program must find each drafter of the tree, and in its own tree.
fn all_drafters_are_found(program: &Path, tree: &Tree) -> Result<()> {
    let listed = without_variables(program).args(["drafters", "--json"]).output();
    let listed = listed.with_context(|| program.display().to_string())?;
    let top = program.parent().and_then(Path::parent).unwrap_or(program).canonicalize()?;
    let mut files: Vec<String> = Vec::new();
    for drafter in Deserializer::from_slice(&listed.stdout).into_iter::<Value>() {
        let drafter = drafter.context("galley drafters --json")?;
        let path = Path::new(drafter["path"].as_str().unwrap_or_default()).canonicalize()?;
        if path.starts_with(&top) {
            files.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    files.sort();
    ensure!(
        files == tree.drafters,
        "drafters {:?} are packed, and found are {files:?}",
        tree.drafters
    );
    Ok(())
}
