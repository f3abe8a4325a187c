//! Drafters by name or file, with their options: `NAME,KEY=VALUE,KEY=VALUE`.
//!
//! A part that begins with a double quote reaches to the double quote that ends it, and may have
//! commas in it. A double quote inside such a part is written twice.

use crate::draft_settings::{AUTO, DraftConfig, DrafterSetup, is_none};
use galley_drafter_host::{Library, LoadError, Search};
use std::collections::BTreeMap;
use std::path::Path;

/// Why a drafter was not found or not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrafterError {
    /// The text is not a drafter with options.
    #[error("{0}")]
    Syntax(String),
    /// There is no such drafter, or it cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl DrafterSetup {
    /// The drafter of a name, with its options: `streaming-llm,budget=512`.
    ///
    /// # Errors
    ///
    /// Options that cannot be read, or a drafter that is not found or not loaded.
    pub fn named(text: &str, search: &Search) -> Result<Self, DrafterError> {
        let (name, options) = split(text)?;
        Ok(Self { library: Library::open(&search.named(&name)?)?, options })
    }

    /// The drafter of a file, with its options: `libdrafter.so,budget=512`. The path of a file that
    /// exists may be given as it is, without options.
    ///
    /// # Errors
    ///
    /// Options that cannot be read, or a drafter that cannot be loaded.
    pub fn in_file(text: &str) -> Result<Self, DrafterError> {
        let (path, options) = match Path::new(text).is_file() {
            true => (text.to_owned(), BTreeMap::new()),
            false => split(text)?,
        };
        Ok(Self { library: Library::open(Path::new(&path))?, options })
    }
}

/// The drafters that the engine may choose without being told: those that need no option and cost nothing before they are
/// used. `layer-skip` searches for its mask while it runs, and `small-model` needs a model.
const CHOSEN_FROM: [&str; 4] = ["ngram", "streaming-llm", "self-spec", "snap-kv"];

impl DraftConfig {
    /// Adds the drafters that a user names, each with its options. Without any drafter, and with the name `auto`, the engine
    /// chooses round by round ([`DraftConfig::choose_from_own`]); `none` adds nothing.
    ///
    /// # Errors
    ///
    /// The name of a drafter that is not found or not loaded, or whose options cannot be read, and the reason.
    pub(super) fn add_named(
        &mut self,
        wanted: &[String],
        search: &Search,
    ) -> Result<(), (String, DrafterError)> {
        let says_nothing = wanted.is_empty() && self.drafters.is_empty();
        let names = wanted.iter().filter(|name| !is_none(name) && *name != AUTO);
        for name in names {
            let setup =
                DrafterSetup::named(name, search).map_err(|reason| (name.clone(), reason))?;
            self.drafters.push(setup);
        }
        if says_nothing || wanted.iter().any(|name| name == AUTO) {
            self.choose_from_own(search);
        }
        Ok(())
    }

    /// Has the engine choose drafter and draft length round by round, among the drafters that are set and Galley's own ones:
    /// those of this version in the folders of the installation ([`Search::own`]). A drafter that is set with options takes
    /// the place of Galley's drafter of the same name.
    pub fn choose_from_own(&mut self, search: &Search) {
        self.auto = true;
        for name in CHOSEN_FROM {
            let is_set = self.drafters.iter().any(|set| set.library.manifest().name == name);
            let Some(path) = search.own(name, env!("CARGO_PKG_VERSION")).filter(|_| !is_set) else {
                continue;
            };
            match Library::open(&path) {
                Ok(library) => self.drafters.push(DrafterSetup::new(library, BTreeMap::new())),
                Err(error) => tracing::warn!("{name} is left out: {error}"),
            }
        }
    }
}

/// Splits `NAME,KEY=VALUE,KEY=VALUE`. A part in double quotes may hold commas, and a double quote inside it is written
/// twice.
fn split(text: &str) -> Result<(String, BTreeMap<String, String>), DrafterError> {
    let (source, mut rest) = part(text, &[','])?;
    let mut options = BTreeMap::new();
    while let Some(option) = rest.strip_prefix(',') {
        let (key, after) = part(option, &['=', ','])?;
        let Some(after) = after.strip_prefix('=') else {
            return Err(DrafterError::Syntax(format!("option {key:?} is not KEY=VALUE")));
        };
        let (value, after) = part(after, &[','])?;
        if options.contains_key(&key) {
            return Err(DrafterError::Syntax(format!("option {key:?} is given twice")));
        }
        options.insert(key, value);
        rest = after;
    }
    Ok((source, options))
}

/// The text up to one of `ends`, or the quoted text at the beginning. The rest begins with the character of `ends`.
fn part<'a>(text: &'a str, ends: &[char]) -> Result<(String, &'a str), DrafterError> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let (part, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        return Ok((part.trim().to_owned(), rest));
    };
    let (mut part, mut rest) = (String::new(), quoted);
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(DrafterError::Syntax(
                "a double quote is not closed; in quotes it is written twice".into(),
            ));
        };
        part.push_str(before);
        rest = after;
        let Some(after) = rest.strip_prefix('"') else { break };
        part.push('"');
        rest = after;
    }
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with(ends) {
        return Err(DrafterError::Syntax(format!("{rest:?} follows a closing double quote")));
    }
    Ok((part, rest))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn options_follow_the_name() {
        let (source, options) = split("streaming-llm,budget=512, sinks=4").expect("fine");
        assert_eq!(source, "streaming-llm");
        let options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(options, [("budget", "512"), ("sinks", "4")]);
        assert!(split("x,budget").unwrap_err().to_string().contains("KEY=VALUE"));
        assert!(split("x,a=1,a=2").unwrap_err().to_string().contains("twice"));
        assert!(split("x,").unwrap_err().to_string().contains("KEY=VALUE"));
    }

    #[test]
    fn case_31_quotes_keep_commas_together() {
        let parts = |text: &str| {
            let (source, options) = split(text).expect("fine");
            let options = options.into_iter().map(|(key, value)| format!("{key}={value}"));
            std::iter::once(source).chain(options).collect::<Vec<_>>()
        };
        assert_eq!(parts(r#""/a,b/c.so""#), ["/a,b/c.so"]);
        assert_eq!(parts(r#""/a,b=c/d.so",times=2"#), ["/a,b=c/d.so", "times=2"]);
        assert_eq!(parts(r#"x,model="/m,n.gguf",k=1"#), ["x", "k=1", "model=/m,n.gguf"]);
        assert_eq!(parts(r#"x, model = "/m ,n" , k=1"#), ["x", "k=1", "model=/m ,n"]);
        assert_eq!(parts(r#""say ""hi"", you.so",a="""#), [r#"say "hi", you.so"#, "a="]);
        // A quote that is not the first character of a part belongs to the text.
        assert_eq!(parts(r#"/a"b.so,c=d"e=f"#), [r#"/a"b.so"#, r#"c=d"e=f"#]);
        assert_eq!(parts(r"C:\new,a=C:\b"), [r"C:\new", r"a=C:\b"]);
        for (text, part) in [
            (r#""a,b.so"#, "not closed"),
            (r#"x,model="a"#, "not closed"),
            (r#""a"b"#, "follows"),
            (r#"x,"model=a""#, "KEY=VALUE"),
        ] {
            let error = split(text).expect_err("wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
