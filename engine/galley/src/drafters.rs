//! Drafters by name or path, with their options, and `galley drafters`.

use crate::args::{DraftArgs, DraftersArgs};
use crate::pull;
use anyhow::{Context, Result, bail};
use galley_engine::drafters::{Found, Library, Search};
use galley_engine::{DraftConfig, DraftRequest, DrafterSetup, FindModel};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

impl DraftArgs {
    /// What the flags ask for, as it was written, with the flag of each.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = self.drafter.iter().map(|wanted| ("--drafter", wanted.as_str()));
        let named = named.filter(|(_, wanted)| !matches!(*wanted, "off" | "none" | ""));
        named.chain(self.drafter_plugin.iter().map(|path| ("--drafter-plugin", path.as_str())))
    }

    /// An error if there are several: for commands that draft in one way.
    pub(crate) fn at_most_one(&self) -> Result<()> {
        match self.wanted().map(|(_, wanted)| wanted).collect::<Vec<_>>()[..] {
            [first, second, ..] => {
                bail!(
                    "--drafter: {first:?} and {second:?} are two; only `galley bench` takes several"
                )
            }
            _ => Ok(()),
        }
    }

    /// The drafters that the flags ask for.
    pub(crate) fn setup(&self) -> Result<Vec<DrafterSetup>> {
        let setup = |(flag, wanted): (&str, &str)| {
            let (source, options) = split(wanted).with_context(|| format!("{flag} {wanted:?}"))?;
            let path = match flag {
                "--drafter" => search(self.plugin_path.as_deref()).named(source)?,
                _ => PathBuf::from(source),
            };
            Ok(DrafterSetup { library: Library::open(&path)?, options })
        };
        self.wanted().map(setup).collect()
    }

    /// How the engine drafts: with those drafters, if any, `draft_length` tokens a round and at most `max` where a
    /// request asks for more.
    pub(crate) fn config(
        &self,
        draft_length: u32,
        max: u32,
        kv_budget: Option<u32>,
    ) -> Result<DraftConfig> {
        let drafters = self.setup()?.into_iter().collect();
        let find_model: FindModel =
            Arc::new(|name| pull::resolve(name).map_err(|error| format!("{error:#}")));
        let drafting =
            DraftConfig { drafters, draft_length, kv_budget, find_model, ..DraftConfig::default() };
        Ok(DraftConfig { max_draft_length: max, ..drafting })
    }

    /// What each request asks of it.
    pub(crate) fn request(&self) -> DraftRequest {
        DraftRequest { verify: self.verify, ..DraftRequest::default() }
    }
}

/// `name,key=value,key=value`.
fn split(text: &str) -> Result<(&str, BTreeMap<String, String>)> {
    let mut parts = text.split(',');
    let source = parts.next().unwrap_or_default().trim();
    let mut options = BTreeMap::new();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            bail!("option {part:?} is not KEY=VALUE");
        };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        if options.insert(key.clone(), value).is_some() {
            bail!("option {key:?} is given twice");
        }
    }
    Ok((source, options))
}

fn search(plugin_path: Option<&OsStr>) -> Search {
    Search::standard(plugin_path, std::env::current_exe().ok().as_deref())
}

/// Runs `galley drafters`.
pub(crate) fn list(args: &DraftersArgs) -> Result<()> {
    let search = search(args.plugin_path.as_deref());
    let mut stdout = std::io::stdout();
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
                writeln!(stdout, "{} {}  {}", m.name, m.version, m.description)?;
                for option in &m.options {
                    let default = match option.default.as_str() {
                        "" => "",
                        default => &format!(" (default {default})"),
                    };
                    writeln!(stdout, "    {:<12} {}{default}", option.name, option.help)?;
                }
                writeln!(stdout, "    {}", path.display())?;
            }
            Err(error) => writeln!(stdout, "refused: {error}")?,
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
    }
}
