//! The search for drafters in folders.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{LoadError, Manifest};

/// The folders to search, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// If two folders hold drafters of the same name, the first folder wins.
    pub folders: Vec<PathBuf>,
    /// The folders of these that belong to the installation of Galley: beside the program or the library, and
    /// `lib/galley/drafters` beside that. A drafter in another folder runs only if its user names it.
    pub own: Vec<PathBuf>,
}

/// A file that looks like a drafter, whether or not its manifest is right.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its manifest, or the error in reading it.
    pub manifest: Result<Manifest, LoadError>,
}

impl Search {
    /// The folders of `plugin_path` (a list like `PATH`), the folders around the executable, and
    /// the system's.
    pub fn standard(plugin_path: Option<&OsStr>, executable: Option<&Path>) -> Self {
        let mut folders: Vec<PathBuf> =
            plugin_path.map(|list| std::env::split_paths(list).collect()).unwrap_or_default();
        let mut own = Vec::new();
        if let Some(beside) = executable.and_then(Path::parent) {
            own.push(beside.to_owned());
            own.push(beside.join("drafters"));
            own.push(beside.join("deps"));
            own.push(beside.join("../lib/galley/drafters"));
        }
        folders.extend(own.iter().cloned());
        folders.push("/usr/local/lib/galley/drafters".into());
        folders.push("/usr/lib/galley/drafters".into());
        folders.retain(|folder| !folder.as_os_str().is_empty());
        Search { folders, own }
    }

    /// Galley's own drafter of this name and version: in a folder of the installation, in a file with the name that Galley's
    /// build gives it, and with the id `galley.NAME`.
    pub fn own(&self, name: &str, version: &str) -> Option<PathBuf> {
        let stem = format!("galley_drafter_{}", name.replace('-', "_"));
        let file =
            format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        self.own.iter().map(|folder| folder.join(&file)).find(|path| {
            let is_own = |manifest: Manifest| {
                manifest.id == format!("galley.{name}")
                    && manifest.name == name
                    && manifest.version == version
            };
            path.is_file() && Manifest::of_file(path).is_ok_and(is_own)
        })
    }

    /// Every drafter in the folders. Of two drafters with the same name, the first is kept.
    pub fn all(&self) -> Vec<Found> {
        let mut all: Vec<Found> = Vec::new();
        for found in self.folders.iter().flat_map(|folder| drafters_in(folder)) {
            let is_known = found.manifest.as_ref().is_ok_and(|new| {
                all.iter().filter_map(|f| f.manifest.as_ref().ok()).any(|old| old.name == new.name)
            });
            if !is_known {
                all.push(found);
            }
        }
        all
    }

    /// The file of the first drafter with this name.
    pub fn named(&self, name: &str) -> Result<PathBuf, LoadError> {
        let mut seen = Vec::new();
        for found in self.folders.iter().flat_map(|folder| drafters_in(folder)) {
            match found.manifest {
                Ok(manifest) if manifest.name == name => return Ok(found.path),
                Ok(manifest) => seen.push(manifest.name),
                Err(error) => seen.push(format!("({error})")),
            }
        }
        seen.sort();
        seen.dedup();
        let folders: Vec<_> = self.folders.iter().map(|f| f.display().to_string()).collect();
        Err(LoadError::NotFound {
            name: name.to_owned(),
            available: if seen.is_empty() { "none".to_owned() } else { seen.join(", ") },
            folders: folders.join(", "),
        })
    }
}

/// Lazy, so that a name found early saves reading the other files. Files named like drafters come
/// first.
fn drafters_in(folder: &Path) -> impl Iterator<Item = Found> + use<> {
    let mut paths: Vec<(bool, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)))
        .filter(|path| path.is_file())
        .map(|path| (!is_named_like_one(&path), path))
        .collect();
    paths.sort();
    paths.into_iter().filter_map(|(is_other, path)| match Manifest::of_file(&path) {
        Err(LoadError::NoManifest { .. }) => None,
        Err(LoadError::Unreadable { .. }) if is_other => None,
        manifest => Some(Found { path, manifest }),
    })
}

fn is_named_like_one(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("galley_drafter"))
}

/// Extensions of shared libraries on every system: the manifest of a library for another system can
/// be read too.
const EXTENSIONS: [&str; 3] = ["so", "dylib", "dll"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_wins_and_an_unknown_name_is_told_what_is_there() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, name: &str, version: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            let text = format!(
                "..galley-drafter-manifest/1:{{\"id\": \"x.{name}\", \"name\": \"{name}\", \
                 \"version\": \"{version}\", \"description\": \"\"}}\0"
            );
            std::fs::write(path, text).expect("written");
        };
        write("a/libgalley_drafter_echo.so", "echo", "1");
        write("bin/drafters/any.so", "echo", "2");
        write("bin/drafters/other.so", "other", "1");
        write("bin/drafters/bad.so", "Bad", "1");
        write("bin/drafters/readme.txt", "text", "1");
        std::fs::write(root.path().join("bin/libplain.so"), "nothing").expect("written");
        let search = Search::standard(
            Some(root.path().join("a").as_os_str()),
            Some(&root.path().join("bin/galley")),
        );
        let all = search.all();
        let names: Vec<_> =
            all.iter().map(|f| f.manifest.as_ref().map_or("-", |m| m.name.as_str())).collect();
        assert_eq!(names, ["echo", "-", "other"]);
        assert_eq!(search.named("echo").expect("found"), all[0].path);
        // Galley's own drafters are not looked for in the folders that the user adds.
        let own = |id: &str, path: &str, version: &str| {
            let text = format!(
                "..galley-drafter-manifest/1:{{\"id\": \"{id}\", \"name\": \"ngram\", \"version\": \"{version}\", \
                 \"description\": \"\"}}\0"
            );
            let file = format!(
                "{}galley_drafter_ngram{}",
                std::env::consts::DLL_PREFIX,
                std::env::consts::DLL_SUFFIX
            );
            std::fs::write(root.path().join(path).join(file), text).expect("written");
            search.own("ngram", "1")
        };
        assert_eq!(own("galley.ngram", "a", "1"), None, "a folder of the user");
        assert_eq!(own("galley.ngram", "bin/drafters", "2"), None, "another version");
        assert_eq!(own("org.example.ngram", "bin/drafters", "1"), None, "another drafter");
        let found = own("galley.ngram", "bin/drafters", "1").expect("Galley's own");
        assert!(found.starts_with(root.path().join("bin/drafters")));
        let error = search.named("text").expect_err("not there").to_string();
        for part in ["echo", "other", "Bad", "bin/drafters", "GALLEY_PLUGIN_PATH"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
