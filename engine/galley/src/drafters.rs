//! Drafters by name or path, with their options, and `galley drafters`.

use crate::args::{DraftArgs, DraftersArgs};
use crate::console::{self, note, plain, sentence};
use crate::pull;
use anyhow::{Context, Error, Result, bail};
use galley_engine::drafters::{Found, Library, Search};
use galley_engine::{DraftConfig, DraftRequest, DrafterSetup, FindModel};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl DraftArgs {
    /// The drafters of the flags as the user wrote them, each with its flag.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = self.drafter.iter().map(|wanted| ("--drafter", wanted.as_str()));
        let named = named.filter(|(_, wanted)| !matches!(*wanted, "off" | "none" | ""));
        named.chain(self.drafter_plugin.iter().map(|path| ("--drafter-plugin", path.as_str())))
    }

    /// An error if there are several drafters: for commands that use one.
    pub(crate) fn at_most_one(&self) -> Result<()> {
        match self.wanted().map(|(_, wanted)| wanted).collect::<Vec<_>>()[..] {
            [first, second, ..] => {
                bail!(
                    "--drafter, --drafter-plugin (GALLEY_DRAFTER, GALLEY_DRAFTER_PLUGIN): {first:?} and {second:?} are \
                     two; only `galley bench` takes several"
                )
            }
            _ => Ok(()),
        }
    }

    /// Opens the drafters of the flags.
    pub(crate) fn setup(&self) -> Result<Vec<DrafterSetup>> {
        let setup = |(flag, wanted): (&str, &str)| {
            // If the whole text is the path of a file, it needs no quotes and has no options.
            let is_path = flag == "--drafter-plugin" && Path::new(wanted).is_file();
            let setup = match is_path {
                true => Library::open(Path::new(wanted))
                    .map(|library| DrafterSetup { library, options: BTreeMap::new() })
                    .map_err(Error::from),
                false => self.setup_of(flag, wanted),
            };
            setup.with_context(|| match !is_path && wanted.contains(',') {
                true => {
                    format!("{flag} {wanted:?} (what has a comma in it stands in double quotes)")
                }
                false => format!("{flag} {wanted:?}"),
            })
        };
        self.wanted().map(setup).collect()
    }

    fn setup_of(&self, flag: &str, wanted: &str) -> Result<DrafterSetup> {
        let (source, options) = split(wanted)?;
        let path = match flag {
            "--drafter" => search(self.plugin_path.as_deref()).named(&source)?,
            _ => PathBuf::from(source),
        };
        Ok(DrafterSetup { library: Library::open(&path)?, options })
    }

    /// The engine's drafting: the drafters of the flags, if any, with `draft_length` draft tokens per round. A request
    /// may set another length, up to `max`.
    pub(crate) fn config(
        &self,
        draft_length: u32,
        max: u32,
        kv_budget: Option<u32>,
    ) -> Result<DraftConfig> {
        let drafters = self.setup()?.into_iter().collect();
        let find_model: FindModel =
            Arc::new(|name| pull::find_or_fetch(name).map_err(|error| sentence(&error.into())));
        let drafting =
            DraftConfig { drafters, draft_length, kv_budget, find_model, ..DraftConfig::default() };
        Ok(DraftConfig { max_draft_length: max, ..drafting })
    }

    /// The drafting of each request.
    pub(crate) fn request(&self) -> DraftRequest {
        DraftRequest { verify: self.verify, ..DraftRequest::default() }
    }
}

/// Splits `NAME,KEY=VALUE,KEY=VALUE`. A part in double quotes may hold commas, and a double quote inside it is written
/// twice.
fn split(text: &str) -> Result<(String, BTreeMap<String, String>)> {
    let (source, mut rest) = part(text, &[','])?;
    let mut options = BTreeMap::new();
    while let Some(option) = rest.strip_prefix(',') {
        let (key, after) = part(option, &['=', ','])?;
        let Some(after) = after.strip_prefix('=') else {
            bail!("option {key:?} is not KEY=VALUE");
        };
        let (value, after) = part(after, &[','])?;
        if options.contains_key(&key) {
            bail!("option {key:?} is given twice");
        }
        options.insert(key, value);
        rest = after;
    }
    Ok((source, options))
}

/// The text up to one of `ends`, or the quoted text at the beginning. The rest begins with the character of `ends`.
fn part<'a>(text: &'a str, ends: &[char]) -> Result<(String, &'a str)> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let (part, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        return Ok((part.trim().to_owned(), rest));
    };
    let (mut part, mut rest) = (String::new(), quoted);
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            bail!("a double quote is not closed; in quotes it is written twice");
        };
        part.push_str(before);
        rest = after;
        let Some(after) = rest.strip_prefix('"') else { break };
        part.push('"');
        rest = after;
    }
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with(ends) {
        bail!("{rest:?} follows a closing double quote");
    }
    Ok((part, rest))
}

fn search(plugin_path: Option<&OsStr>) -> Search {
    Search::standard(plugin_path, std::env::current_exe().ok().as_deref())
}

/// Runs `galley drafters`.
pub(crate) fn list(args: &DraftersArgs) -> Result<()> {
    let named = args.plugin_path.as_deref();
    for folder in named.map(std::env::split_paths).into_iter().flatten() {
        if let Err(error) = std::fs::read_dir(&folder) {
            let folder = folder.display();
            note(format_args!("--plugin-path (GALLEY_PLUGIN_PATH): {folder}: {error}"));
        }
    }
    let search = search(named);
    let mut stdout = console::stdout();
    let found = search.all();
    for Found { path, manifest } in &found {
        if args.json {
            let line = match manifest {
                Ok(m) => json!({
                    "name": m.name, "id": m.id, "version": m.version, "description": m.description,
                    "needs": m.needs, "path": path,
                    "options": m.options.iter().map(|o| json!({
                        "name": o.name, "default": o.default, "help": o.help,
                    })).collect::<Vec<_>>(),
                }),
                Err(error) => json!({"path": path, "refused": error.to_string()}),
            };
            writeln!(stdout, "{line}")?;
            continue;
        }
        match manifest {
            Ok(m) => {
                writeln!(stdout, "{} {}  {}", m.name, plain(&m.version), plain(&m.description))?;
                for option in &m.options {
                    let default = match option.default.as_str() {
                        "" => "",
                        default => &format!(" (default {default})"),
                    };
                    let help = format!("{}{default}", option.help);
                    writeln!(stdout, "    {:<12} {}", plain(&option.name), plain(&help))?;
                }
                writeln!(stdout, "    {}", path.display())?;
            }
            Err(error) => writeln!(stdout, "refused: {}", plain(&error.to_string()))?,
        }
    }
    if found.is_empty() && !args.json {
        writeln!(stdout, "No drafters. They are looked for in:")?;
        for folder in &search.folders {
            writeln!(stdout, "    {}", folder.display())?;
        }
        writeln!(stdout, "Name another folder with --plugin-path or GALLEY_PLUGIN_PATH.")?;
    }
    Ok(())
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
