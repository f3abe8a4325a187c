//! C++ programs over the emulation, compiled and run by tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What every program is compiled with: names from the crate's folder, where tests run.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-g",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
    "-Iinclude",
    "-Icu",
    "-Iemulator",
    "-pthread",
    "-x",
    "c++",
];

/// Files of a folder of the crate with one of these endings, in order.
///
/// # Panics
///
/// Where there are none.
pub(crate) fn sources(folder: &str, ending: &str) -> Vec<PathBuf> {
    let files = Path::new(folder).read_dir().expect("a folder of the crate");
    let files = files.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    assert!(!files.is_empty(), "no .{ending} in {folder}");
    files.sort();
    files
}

/// Compiles sources by themselves, and gives their objects.
///
/// # Panics
///
/// Where the compiler finds an error, with what it says.
pub(crate) fn objects(
    folder: &Path,
    name: &str,
    sources: &[PathBuf],
    flags: &[&str],
) -> Vec<PathBuf> {
    let objects = sources.iter().map(|source| {
        let stem = source.file_stem().expect("a name").to_string_lossy();
        let object = folder.join(format!("{name}-{stem}.o"));
        let mut compiler = Command::new("c++");
        compiler.args(flags).args(FLAGS).arg("-c").arg(source);
        make(&object, &mut compiler);
        object
    });
    objects.collect()
}

/// Links objects (or a library, last) to a program.
///
/// # Panics
///
/// Where the linker fails, with what it says.
pub(crate) fn link(folder: &Path, name: &str, objects: &[PathBuf], flags: &[&str]) -> PathBuf {
    let program = folder.join(name);
    make(&program, Command::new("c++").args(objects).args(flags).arg("-pthread"));
    program
}

/// Has a compiler write a file, aside: each test may be a process, and they make the same files. One that is being
/// written cannot be started, and half an object cannot be linked; a file that is replaced whole is neither.
fn make(path: &Path, compiler: &mut Command) {
    let aside = path.with_added_extension(std::process::id().to_string());
    let output = compiler.arg("-o").arg(&aside).output().expect("a C++ compiler is there");
    assert!(output.status.success(), "{compiler:?}\n{}", stderr(&output));
    std::fs::rename(&aside, path).expect("a file takes its name");
}

/// Runs a program with settings of the emulation.
pub(crate) fn run(program: &Path, words: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    for name in ["SCHEDULE", "SEED", "COPIES", "THREADS", "WORK"] {
        command.env_remove(format!("GALLEY_EMULATOR_{name}"));
    }
    for (name, value) in settings {
        command.env(format!("GALLEY_EMULATOR_{name}"), value);
    }
    command.args(words).output().expect("a program that starts")
}

/// What a program said.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder for the products of one test file, in the build's own.
///
/// # Panics
///
/// Where it cannot be made.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
