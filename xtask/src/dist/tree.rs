//! The tree of files that all packages hold.

use crate::shell::{cargo, command, output, root, run, target};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Built files in the layout of the packages.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Name of the folder, such as `galley-0.1.0-linux-x86_64`.
    pub(crate) name: String,
    /// The folder.
    pub(crate) path: PathBuf,
    /// Version of the workspace.
    pub(crate) version: String,
    /// How the files were built.
    pub(crate) profile: Profile,
    /// Names of the drafters' files.
    pub(crate) drafters: Vec<String>,
}

/// A way to build the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    /// Release, with the CUDA backend.
    Cuda,
    /// A quick build. The emulated GPU of `cargo xtask test` is not part of it: a library with it has more thread-local
    /// memory than a running program has room for.
    Dev,
}

impl Profile {
    /// The end of the tree's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Profile::Release => "",
            Profile::Cuda => "-cuda",
            Profile::Dev => "-debug",
        }
    }
}

/// The shared library's file. Its number is that of the C ABI; `libgalley.so` is a link for linkers.
const LIBRARY: &str = "libgalley.so.0";
/// The crate of the C library. The other files come from the workspace's default members.
const LIBRARY_CRATE: &str = "galley-ffi";

/// Documents of the packages. In `share/doc/galley` they have their paths of the repository: links between them stay whole.
const DOCUMENTS: [&str; 6] = [
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "docs/embedding.md",
    "docs/python.md",
    "docs/requests.md",
];
/// The folders of the examples in the packages, and the extension of their sources.
const EXAMPLES: [(&str, &str); 4] = [
    ("examples/c", "c"),
    ("examples/cpp", "cpp"),
    ("examples/node", "mjs"),
    ("examples/python", "py"),
];

impl Tree {
    /// Builds all files, and lays them out in a new folder below [`folder`].
    pub(crate) fn build(profile: Profile) -> Result<Self> {
        let packages = Packages::read()?;
        let artifacts = build(&packages, profile)?;
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        ensure!(
            os == "linux",
            "packages are for Linux; on {os}, `cargo build --release` builds the files"
        );
        let name = format!("galley-{}-{os}-{arch}{}", packages.version, profile.suffix());
        let path = folder().join(&name);
        make_empty(&path)?;
        let mut tree =
            Tree { name, path, version: packages.version, profile, drafters: Vec::new() };
        for artifact in &artifacts {
            tree.add_artifact(artifact)?;
        }
        tree.add_texts()?;
        for needed in ["bin/galley", "lib/libgalley.so.0", "lib/libgalley.a"] {
            ensure!(tree.path.join(needed).is_file(), "the build made no {needed}");
        }
        ensure!(!tree.drafters.is_empty(), "the build made no drafter");
        tree.drafters.sort();
        Ok(tree)
    }

    fn add_artifact(&mut self, artifact: &Artifact) -> Result<()> {
        let file = &artifact.file;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let extension = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
        match (artifact.package.as_str(), extension) {
            ("galley", "") => self.add_stripped(file, "bin/galley", "--strip-unneeded"),
            (LIBRARY_CRATE, "so") => {
                self.add_stripped(file, &format!("lib/{LIBRARY}"), "--strip-unneeded")?;
                link(LIBRARY, &self.path.join("lib/libgalley.so"))
            }
            (LIBRARY_CRATE, "a") => self.add_stripped(file, "lib/libgalley.a", "--strip-debug"),
            (_, "so") if name.contains("galley_drafter") => {
                let place = format!("lib/galley/drafters/{name}");
                self.drafters.push(name);
                self.add_stripped(file, &place, "--strip-unneeded")
            }
            _ => Ok(()),
        }
    }

    /// Copies a file without its debug information, which is larger than the code.
    fn add_stripped(&self, from: &Path, to: &str, kind: &str) -> Result<()> {
        let to = self.place(to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        let mut strip = command("strip", [kind]);
        strip.arg(&to);
        run(strip)
    }

    fn add_texts(&self) -> Result<()> {
        fs::copy(root().join("ffi/include/galley.h"), self.place("include/galley.h")?)
            .context("ffi/include/galley.h")?;
        let template =
            fs::read_to_string(root().join("ffi/galley.pc.in")).context("ffi/galley.pc.in")?;
        let description = template.replace("@VERSION@", &self.version);
        if let Some(left) = description.split('@').nth(1) {
            bail!("ffi/galley.pc.in: @{left}@ has no value here");
        }
        fs::write(self.place("lib/pkgconfig/galley.pc")?, description)?;
        for document in DOCUMENTS.map(PathBuf::from).into_iter().chain(examples()?) {
            let to = self.place(&format!("share/doc/galley/{}", document.display()))?;
            fs::copy(root().join(&document), to).with_context(|| document.display().to_string())?;
        }
        Ok(())
    }

    /// The path of a file in the tree; its folder exists then.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
        Ok(path)
    }
}

/// The folder of the packages and of the tree.
pub(crate) fn folder() -> PathBuf {
    target().join("dist")
}

/// Makes a folder, without the files that an earlier call left there.
pub(crate) fn make_empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

#[cfg(unix)]
fn link(to: &str, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

#[cfg(not(unix))]
fn link(_: &str, at: &Path) -> Result<()> {
    bail!("{}: packages are for Linux", at.display())
}

/// The sources of the examples, by their path in the repository.
fn examples() -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (folder, extension) in EXAMPLES {
        let before = paths.len();
        for entry in root().join(folder).read_dir().context(folder)? {
            let path = Path::new(folder).join(entry?.file_name());
            if path.extension().is_some_and(|end| end == extension) {
                paths.push(path);
            }
        }
        ensure!(paths.len() > before, "{folder} has no file of type {extension}");
    }
    Ok(paths)
}

/// Names of the packages to build, and their version.
struct Packages {
    names: Vec<String>,
    version: String,
}

impl Packages {
    /// The default members of the workspace (the program and its drafters), and the library.
    fn read() -> Result<Self> {
        let metadata = output(cargo("metadata --no-deps --format-version 1 --locked"))?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let list = |key: &str| metadata[key].as_array().cloned().unwrap_or_default();
        let members = list("workspace_default_members");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (mut names, mut version) = (Vec::new(), None);
        for package in list("packages") {
            let name = text(&package["name"]);
            if name == LIBRARY_CRATE || members.contains(&package["id"]) {
                version = Some(text(&package["version"]));
                names.push(name);
            }
        }
        ensure!(names.iter().any(|name| name == LIBRARY_CRATE), "no package {LIBRARY_CRATE}");
        Ok(Packages { names, version: version.context("the workspace has no default members")? })
    }
}

/// A file that cargo has built.
struct Artifact {
    package: String,
    file: PathBuf,
}

fn build(packages: &Packages, profile: Profile) -> Result<Vec<Artifact>> {
    let mut build = cargo("build --locked --message-format=json-render-diagnostics");
    if profile != Profile::Dev {
        build.arg("--release");
    }
    build.args(packages.names.iter().flat_map(|name| ["--package", name]));
    if profile == Profile::Cuda {
        build.args(["--features", "galley/cuda,galley-ffi/cuda"]);
    }
    let messages = output(build)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    Ok(artifacts.flat_map(|message| artifacts_of(&message, &packages.names)).collect())
}

/// The files of a message of cargo, if one of the packages has made them.
fn artifacts_of(message: &Value, packages: &[String]) -> Vec<Artifact> {
    // An id is `path+file:///folder#name@version`, or `…/name#version` where the folder has the package's name.
    let id = message["package_id"].as_str().unwrap_or_default();
    let (place, name) = id.rsplit_once('#').unwrap_or_default();
    let name =
        name.split_once('@').map_or_else(|| place.rsplit('/').next(), |(name, _)| Some(name));
    let Some(package) = packages.iter().find(|known| Some(known.as_str()) == name) else {
        return Vec::new();
    };
    let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    files.map(|file| Artifact { package: package.clone(), file: file.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn examples_of_every_language_are_packed() -> Result<()> {
        let found = examples()?;
        for path in ["c/chat.c", "cpp/batch.cpp", "node/stream.mjs", "python/batch.py"] {
            assert!(found.contains(&Path::new("examples").join(path)), "{path}: {found:?}");
        }
        Ok(())
    }

    #[test]
    fn files_of_the_packages_alone_are_taken() {
        let packages = ["galley".to_owned(), "galley-drafter-ngram".to_owned()];
        let found = |id: &str, file: &str| {
            let message = json!({"package_id": id, "filenames": [file]});
            let artifacts = artifacts_of(&message, &packages);
            artifacts.into_iter().map(|artifact| artifact.package).collect::<Vec<_>>()
        };
        assert_eq!(found("path+file:///a/galley#0.1.0", "/t/galley"), ["galley"]);
        assert_eq!(
            found("path+file:///a/plugins/ngram#galley-drafter-ngram@0.1.0", "/t/x.so"),
            ["galley-drafter-ngram"]
        );
        assert!(found("registry+https://a.b/index#serde@1.0.0", "/t/libserde.rlib").is_empty());
        assert!(found("path+file:///a/galley-model#0.1.0", "/t/libgalley_model.rlib").is_empty());
    }
}
