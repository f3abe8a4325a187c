//! Drafters by name or path, with their options, and `galley drafters`.

use crate::args::{DraftArgs, DraftersArgs};
use crate::console::{self, note, plain, sentence};
use crate::pull;
use anyhow::{Context, Result, bail};
use galley_engine::drafters::{Found, Search};
use galley_engine::{AUTO, DraftConfig, DraftRequest, DrafterSetup, FindModel, is_none};
use serde_json::json;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest draft that the engine chooses.
const CHOSEN_LENGTH: u32 = 8;

impl DraftArgs {
    /// The drafters of the flags as the user wrote them, each with its flag.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = self.drafter.iter().map(|wanted| ("--drafter", wanted.as_str()));
        let named = named.filter(|(_, wanted)| !is_none(wanted) && *wanted != AUTO);
        named.chain(self.drafter_plugin.iter().map(|path| ("--drafter-plugin", path.as_str())))
    }

    /// Whether the engine is asked to choose.
    pub(crate) fn is_auto(&self) -> bool {
        self.drafter.iter().any(|wanted| wanted == AUTO)
    }

    /// The same flags, with the engine's choice if they say nothing.
    pub(crate) fn or_auto(&self) -> Self {
        let mut draft = self.clone();
        if self.drafter.is_empty() && self.drafter_plugin.is_empty() {
            draft.drafter.push(AUTO.to_owned());
        }
        draft
    }

    /// An error if there are several drafters: for commands that use one.
    pub(crate) fn at_most_one(&self) -> Result<()> {
        match self.wanted().map(|(_, wanted)| wanted).collect::<Vec<_>>()[..] {
            [first, second, ..] if !self.is_auto() => {
                bail!(
                    "--drafter, --drafter-plugin (GALLEY_DRAFTER, GALLEY_DRAFTER_PLUGIN): {first:?} and {second:?} are \
                     two; `galley bench` takes several, and --drafter auto chooses among them"
                )
            }
            _ => Ok(()),
        }
    }

    /// Opens the drafters of the flags.
    pub(crate) fn setup(&self) -> Result<Vec<DrafterSetup>> {
        let setup = |(flag, wanted): (&str, &str)| {
            let setup = match flag {
                "--drafter" => DrafterSetup::named(wanted, &search(self.plugin_path.as_deref())),
                _ => DrafterSetup::in_file(wanted),
            };
            setup.with_context(|| {
                // If the whole text is the path of a file, it needs no quotes and has no options.
                let is_path = flag == "--drafter-plugin" && Path::new(wanted).is_file();
                match !is_path && wanted.contains(',') {
                    true => format!("{flag} {wanted:?} (a value with a comma needs double quotes)"),
                    false => format!("{flag} {wanted:?}"),
                }
            })
        };
        self.wanted().map(setup).collect()
    }

    /// The engine's drafting for a command with one engine: the drafters of the flags, or the engine's choice, with at most
    /// `draft_length` draft tokens a round.
    pub(crate) fn single(
        &self,
        draft_length: Option<u32>,
        kv_budget: Option<u32>,
    ) -> Result<DraftConfig> {
        self.at_most_one()?;
        let draft = self.or_auto();
        let own = DraftConfig::default().draft_length;
        let most = draft_length.unwrap_or(if draft.is_auto() { CHOSEN_LENGTH } else { own });
        draft.config(draft_length.unwrap_or(own), most, kv_budget)
    }

    /// The engine's drafting: the drafters of the flags, if any, with `draft_length` draft tokens per round. A request
    /// may set another length, up to `max`.
    pub(crate) fn config(
        &self,
        draft_length: u32,
        max: u32,
        kv_budget: Option<u32>,
    ) -> Result<DraftConfig> {
        let mut config = DraftConfig::default().drafters(self.setup()?);
        if self.is_auto() {
            config.choose_from_own(&search(self.plugin_path.as_deref()));
        }
        let find_model: FindModel = Arc::new(|name| {
            pull::find_or_fetch(name).map_err(|error| sentence(&error.into()).into())
        });
        Ok(config
            .draft_length(draft_length)
            .max_draft_length(max)
            .kv_budget(kv_budget)
            .suffix_bytes(self.suffix_bytes)
            .max_inter_token(self.slo_itl_ms.map(Duration::from_millis))
            .calibrates(!self.no_calibration)
            .find_model(find_model))
    }

    /// The drafting of each request.
    pub(crate) fn request(&self) -> DraftRequest {
        DraftRequest::default().verify(self.verify)
    }
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
