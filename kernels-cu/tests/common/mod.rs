//! C++ programs over the emulation, which tests compile and run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Flags of every program. Paths are relative to the crate's folder, in which tests run.
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

/// The files of a folder of the crate with this ending, sorted.
///
/// # Panics
///
/// If there are none.
pub(crate) fn sources(folder: &str, ending: &str) -> Vec<PathBuf> {
    let files = Path::new(folder).read_dir().expect("a folder of the crate");
    let files = files.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    assert!(!files.is_empty(), "no .{ending} in {folder}");
    files.sort();
    files
}

/// Compiles each source, and returns the objects.
///
/// # Panics
///
/// If the compiler fails. The message has its output.
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
/// If the linker fails. The message has its output.
pub(crate) fn link(folder: &Path, name: &str, objects: &[PathBuf], flags: &[&str]) -> PathBuf {
    let program = folder.join(name);
    make(&program, Command::new("c++").args(objects).args(flags).arg("-pthread"));
    program
}

/// Makes a compiler write a temporary file, and renames it. Several test processes make the same files. A program that
/// is being written cannot be started, and half an object cannot be linked; a renamed file is always complete.
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

/// The error output of a program.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder for the products of one test file, in the build folder.
///
/// # Panics
///
/// If the folder cannot be made.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
