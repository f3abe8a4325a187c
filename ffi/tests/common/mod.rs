//! Helpers of the tests: the library as it is installed, and programs that are compiled against it.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the crate.
pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder in which cargo puts the library and the drafters of this build.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("a test is in target/PROFILE/deps").to_owned()
}

/// The library, its header and some drafters in a folder of their own, as a package installs them.
pub(crate) struct Installed {
    root: tempfile::TempDir,
}

impl Installed {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir_in(built()).expect("a folder");
        let to = |path: &str| root.path().join(path);
        for folder in ["bin", "include", "lib/pkgconfig", "lib/galley/drafters"] {
            std::fs::create_dir_all(to(folder)).expect("a folder");
        }
        // Links within one file system: the library with its debug information is large.
        let link = |from: &Path, path: &str| std::fs::hard_link(from, to(path)).expect("a link");
        link(&built().join("libgalley.so"), "lib/libgalley.so.0");
        link(&built().join("libgalley.a"), "lib/libgalley.a");
        std::os::unix::fs::symlink("libgalley.so.0", to("lib/libgalley.so")).expect("a link");
        std::fs::copy(here().join("include/galley.h"), to("include/galley.h")).expect("copied");
        let config = std::fs::read_to_string(here().join("galley.pc.in")).expect("a file");
        let config = config.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        std::fs::write(to("lib/pkgconfig/galley.pc"), config).expect("written");
        Installed { root }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Builds the drafter `ngram` and installs it.
    pub(crate) fn add_drafter(&self) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let words = ["build", "--quiet", "--locked", "--package", "galley-drafter-ngram"];
        let status = Command::new(cargo).current_dir(here()).args(words).status();
        assert!(status.expect("cargo runs").success(), "the drafter builds");
        let name = "libgalley_drafter_ngram.so";
        let file = built().parent().expect("target/PROFILE").join(name);
        let to = self.path("lib/galley/drafters").join(name);
        std::fs::copy(file, to).expect("copied");
    }

    /// The value of a key in galley.pc, as words.
    fn config(&self, key: &str) -> Vec<String> {
        let folder = self.path("lib/pkgconfig");
        let text = std::fs::read_to_string(folder.join("galley.pc")).expect("a file");
        let mut value = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}: ")))
            .unwrap_or_else(|| panic!("galley.pc has no {key}"))
            .to_owned();
        let variables: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
        for _ in 0..3 {
            for (name, meaning) in &variables {
                value = value.replace(&format!("${{{name}}}"), meaning);
            }
        }
        let value = value.replace("${pcfiledir}", folder.to_str().expect("UTF-8"));
        value.split(' ').map(str::to_owned).collect()
    }

    /// Compiles a program, with warnings as errors, as galley.pc says.
    pub(crate) fn compile(&self, source: &str, link: Link) -> PathBuf {
        let source = here().join(source);
        let name = source.file_stem().expect("a name").to_str().expect("UTF-8");
        let program = self.path("bin").join(format!("{name}-{link:?}"));
        let is_cpp = source.extension().is_some_and(|extension| extension == "cpp");
        let (compiler, standard) = if is_cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
        let mut command = Command::new(compiler);
        command.args([standard, "-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-O1"]);
        if link == Link::Sanitized {
            command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        }
        command.args(self.config("Cflags")).arg(&source).arg("-o").arg(&program);
        match link {
            Link::Static => {
                command.arg(self.path("lib/libgalley.a")).args(self.config("Libs.private"));
                // The emulated GPU is in C++, and in no package.
                if cfg!(feature = "emulate") {
                    command.arg("-lstdc++");
                }
                &mut command
            }
            Link::Shared | Link::Sanitized => command.args(self.config("Libs")).arg("-lpthread"),
        };
        assert!(command.status().expect("a C compiler is there").success(), "{name} compiles");
        program
    }
}

/// How a program is linked with the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
    /// Shared, and the program with the address sanitizer. It sees the library's memory too.
    Sanitized,
}

/// The folder of a tiny model.
pub(crate) fn model(name: &str) -> PathBuf {
    here().join("../tests/data/models").join(name)
}

/// Settings of an engine over a tiny model. `more` is JSON behind them, such as `, "threads": 2`.
pub(crate) fn settings(name: &str, more: &str) -> String {
    let path = model(name);
    let path = path.to_str().expect("UTF-8");
    format!(r#"{{"model": "{path}", "kv_cache_tokens": 8192, "threads": 1{more}}}"#)
}

/// Runs a program without the caller's environment, in the folder of the file system's root.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The programs read all input first, or write little: the pipes do not fill up.
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// The output of a program that succeeds.
pub(crate) fn output(program: &Path, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{errors}", program.display(), output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}
