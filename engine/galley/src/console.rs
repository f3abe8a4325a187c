//! All printing of the binary: results on standard output, everything else on standard error.
//!
//! If the reader of standard output is gone (`galley info MODEL | head -1`), the program ends without an error. A note
//! that cannot be written is dropped, and the program goes on. Only terminals get colours and progress bars.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::thread;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Standard output. It marks its errors, so that [`is_reader_gone`] can recognise them.
pub(crate) struct Stdout;

/// Standard output, for results.
pub(crate) fn stdout() -> Stdout {
    Stdout
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patiently(|| io::stdout().write(bytes)).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        patiently(|| io::stdout().flush()).map_err(unwritten)
    }
}

/// Repeats an operation until the pipe is ready: the parent process may have made the pipe non-blocking.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

const PAUSE: Duration = Duration::from_millis(2);

/// An error of standard output.
#[derive(Debug)]
struct Unwritten(io::Error);

impl Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

/// Whether the reader of standard output has closed the pipe. The broken connection of a download does not count.
pub(crate) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut unwritten =
        causes.filter_map(io::Error::get_ref).filter_map(|inner| inner.downcast_ref::<Unwritten>());
    unwritten.any(|unwritten| unwritten.0.kind() == ErrorKind::BrokenPipe)
}

/// Writes a line to standard error.
pub(crate) fn note(text: impl Display) {
    // One write per line, so that lines of several threads stay whole. There is no place to report a failed write.
    let line = format!("{text}\n");
    let _ = patiently(|| io::stderr().write_all(line.as_bytes()));
}

/// An error and its causes in one line, without the text that one cause repeats of another.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if parts.iter().any(|part| part.contains(&cause)) {
            continue;
        }
        // A cause that begins with the part before it replaces that part.
        parts.pop_if(|last| {
            cause.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with(": "))
        });
        parts.push(cause);
    }
    parts.join(": ")
}

/// Text of a file for the terminal, with every control character replaced.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Prints warnings of libraries on standard error.
pub(crate) fn show_warnings() {
    tracing_subscriber::fmt()
        .with_writer(|| Stderr)
        .with_ansi(has_colours())
        .with_max_level(LevelFilter::WARN)
        .without_time()
        .with_target(false)
        .log_internal_errors(false)
        .init();
}

/// Standard error. A write never fails: a lost warning must not stop the program.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = patiently(|| io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error shows colours.
fn has_colours() -> bool {
    let variable = |name| std::env::var_os(name);
    io::stderr().is_terminal() && wants_colours(&variable)
}

/// The rules of <https://no-color.org> and <https://bixense.com/clicolors>.
fn wants_colours(variable: &dyn Fn(&'static str) -> Option<std::ffi::OsString>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|found| found == OsStr::new(value));
    let no_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = is("TERM", "dumb") || (cfg!(unix) && variable("TERM").is_none());
    !no_colour && !is("CLICOLOR", "0") && !is_dumb
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_reason_is_printed_once() {
        let system = || io::Error::from_raw_os_error(2);
        let reason = system().to_string();
        let plain = anyhow::Error::new(system()).context("model.gguf");
        assert_eq!(sentence(&plain), format!("model.gguf: {reason}"));
        // The text of this error contains the reason, and so does its source.
        let path = "no/such/file".into();
        let twice = galley_model::ModelError::Io { path, reason: system() };
        let twice = anyhow::Error::new(twice).context("cannot load it");
        assert_eq!(sentence(&twice), format!("cannot load it: no/such/file: {reason}"));
        let longer = anyhow!("a: b").context("a");
        assert_eq!(sentence(&longer), "a: b");
        // Different reasons are all printed.
        assert_eq!(sentence(&anyhow!("c").context("b").context("a")), "a: b: c");
    }

    #[test]
    fn only_a_reader_of_standard_output_can_be_gone() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let ours: anyhow::Result<()> = Err(unwritten(broken())).context("while printing");
        assert!(is_reader_gone(&ours.expect_err("it is one")));
        assert!(!is_reader_gone(&anyhow::Error::new(broken()).context("a download")));
        let full = unwritten(io::Error::from(ErrorKind::StorageFull));
        assert!(!is_reader_gone(&full.into()));
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        let wants = |set: &[(&str, &str)]| {
            wants_colours(&|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            })
        };
        assert!(wants(&[("TERM", "xterm")]));
        assert!(wants(&[("TERM", "xterm"), ("NO_COLOR", ""), ("CLICOLOR", "1")]));
        assert!(!wants(&[("TERM", "dumb")]));
        assert!(!wants(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
        assert!(!wants(&[("TERM", "xterm"), ("CLICOLOR", "0")]));
    }
}
