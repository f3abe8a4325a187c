//! A drafter's manifest, read from its file without running any of its code.

use std::fs::FileType;
use std::io::Read;
use std::path::Path;

use galley_drafter_abi as abi;
use serde::Deserialize;

use crate::LoadError;

/// A drafter's description of itself and its requirements.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// The id, which never changes.
    pub id: String,
    /// The name that `--drafter` takes.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line for lists.
    pub description: String,
    /// Extensions that the drafter requires.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The options of the drafter.
    #[serde(default)]
    pub options: Vec<OptionSpec>,
}

/// One option of a drafter.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key.
    pub name: String,
    /// The value if the user gives none.
    pub default: String,
    /// One line for lists.
    pub help: String,
}

impl Manifest {
    /// Reads the manifest from a library file. The library's code does not run.
    pub fn of_file(path: &Path) -> Result<Manifest, LoadError> {
        let bytes = read(path)?;
        let json = find(&bytes).ok_or_else(|| LoadError::NoManifest { path: path.to_owned() })?;
        Manifest::of_json(json)
            .map_err(|reason| LoadError::BadManifest { path: path.to_owned(), reason })
    }

    /// Parses the text that a loaded library points to: the mark, followed by JSON.
    pub(crate) fn of_marked(bytes: &[u8]) -> Result<Manifest, String> {
        Manifest::of_json(bytes.strip_prefix(MARK).ok_or("it does not begin with the mark")?)
    }

    fn of_json(json: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if manifest.name.is_empty() || !manifest.name.chars().all(is_word) {
            return Err(format!("the name {:?} is not of a-z, 0-9 and -", manifest.name));
        }
        let id_is_right =
            manifest.id.split('.').all(|part| !part.is_empty() && part.chars().all(is_word));
        if !id_is_right {
            return Err(format!(
                "the id {:?} is not of words of a-z, 0-9 and -, joined by dots",
                manifest.id
            ));
        }
        if let Some(need) = manifest.needs.iter().find(|need| !OFFERED.contains(&need.as_str())) {
            return Err(format!(
                "it needs {need:?}, and this Galley offers {} only",
                OFFERED.join(", ")
            ));
        }
        for (i, option) in manifest.options.iter().enumerate() {
            if manifest.options[..i].iter().any(|earlier| earlier.name == option.name) {
                return Err(format!("the option {:?} is there twice", option.name));
            }
        }
        Ok(manifest)
    }
}

/// Reads a file. Anything but a regular file is not opened: a pipe would wait for a writer, and a
/// device may have no end.
fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let kind = kind_of(metadata.file_type());
        return Err(LoadError::NotAFile { path: path.to_owned(), kind });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(LoadError::NoManifest { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn kind_of(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
    }
    if file_type.is_dir() { "a folder" } else { "no regular file" }
}

/// The JSON after the first mark that a brace follows. The mark alone also occurs in code that
/// searches for it.
fn find(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let at = rest.windows(MARK.len() + 1).position(|window| {
            window[0] == MARK[0] && window.starts_with(MARK) && window[MARK.len()] == b'{'
        })?;
        rest = &rest[at + MARK.len()..];
        if let Some(n_bytes) = rest.iter().take(MAX_BYTES).position(|&byte| byte == 0) {
            return Some(&rest[..n_bytes]);
        }
    }
}

/// The mark of the header without its NUL.
const MARK: &[u8] = abi::GD_MANIFEST_MARK.split_last().expect("the header's mark is not empty").1;

/// No drafter is this large, and a larger file may not fit into memory.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// A manifest is a page of text. A longer text belongs to a file that holds the mark by chance.
const MAX_BYTES: usize = 1 << 16;

/// Every extension that this host offers.
const OFFERED: [&str; 8] = [
    "galley.models/1",
    "galley.views/1",
    "galley.observe/1",
    "galley.layers/1",
    "galley.chain/1",
    "galley.tokens/1",
    "galley.suffix/1",
    "galley.replay/1",
];

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = r#"{"id": "org.example.echo", "name": "echo", "version": "1",
        "description": "d", "needs": ["galley.tokens/1"], "later": 3}"#;

    #[test]
    fn the_first_mark_with_a_brace_counts() {
        let mark = std::str::from_utf8(MARK).expect("ASCII");
        let file = format!("\0\x01{mark}\0..{mark}{ECHO}\0{mark}{{\0");
        let manifest = Manifest::of_json(find(file.as_bytes()).expect("it is there"));
        assert_eq!(manifest.expect("it is right").name, "echo");
        assert!(find(format!("{mark}\0").as_bytes()).is_none());
        assert!(find(format!("{mark}{{ no end").as_bytes()).is_none());
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let (device, absent) = (Path::new("/dev/zero"), folder.path().join("absent"));
        for (path, part) in [
            (folder.path(), "a folder"),
            (&socket, "a socket"),
            (&pipe, "a pipe"),
            (device, "a device"),
            (&absent, "cannot read"),
        ] {
            let error = Manifest::of_file(path).expect_err("no drafter").to_string();
            let name = path.display().to_string();
            assert!(error.contains(part) && error.contains(&name), "{error}");
        }
        // A file over the size limit: the host reads nothing of it.
        let sparse = folder.path().join("sparse.so");
        let file = std::fs::File::create(&sparse).expect("a file");
        file.set_len(MAX_FILE_BYTES + 1).expect("holes take no room");
        let error = Manifest::of_file(&sparse).expect_err("no drafter").to_string();
        assert!(error.contains("no manifest"), "{error}");
    }

    #[test]
    fn wrong_manifests_are_refused() {
        for (from, to) in [
            ("\"echo\"", "\"Echo\""),
            ("\"echo\"", "\"\""),
            ("org.example", "org..example"),
            ("tokens/1", "tokens/2"),
            ("\"version\": \"1\",", ""),
        ] {
            assert!(Manifest::of_json(ECHO.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
