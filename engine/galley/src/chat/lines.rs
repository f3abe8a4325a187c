//! The user's input: lines from an editor on a terminal, and plain lines from any other source.

use anyhow::{Context, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::thread;
use std::time::Duration;

/// Longest line, longer than any context: a stream without line feeds must not fill the memory.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The source of lines.
pub(super) enum Lines {
    /// A terminal that can move its cursor.
    Edited(Box<DefaultEditor>),
    /// A pipe, a file, or a terminal that cannot move its cursor. `prompt` is set for a terminal.
    Plain { prompt: bool },
}

impl Lines {
    pub(super) fn of_standard_input() -> Result<Self> {
        let (types, sees) = (io::stdin().is_terminal(), io::stdout().is_terminal());
        let can_edit = std::env::var("TERM").is_ok_and(|term| term != "dumb") || cfg!(windows);
        if types && sees && can_edit {
            let editor = DefaultEditor::new().context("cannot read from the terminal")?;
            return Ok(Self::Edited(Box::new(editor)));
        }
        Ok(Self::Plain { prompt: types })
    }

    /// The next line, or the reason why it cannot be used. None at the end of the input.
    pub(super) fn next(&mut self) -> Result<Option<Result<String, String>>> {
        match self {
            Self::Edited(editor) => edited(editor),
            Self::Plain { prompt } => {
                if *prompt {
                    // The prompt goes to standard error: standard output may be a file of answers.
                    let _ = write!(io::stderr(), "> ");
                }
                let line = read_line(&mut io::stdin().lock());
                line.context("cannot read from standard input")
            }
        }
    }
}

fn edited(editor: &mut DefaultEditor) -> Result<Option<Result<String, String>>> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // The chat goes on if the history cannot store the line.
                let _ = editor.add_history_entry(line.as_str());
                return Ok(Some(Ok(line)));
            }
            // Ctrl-C abandons the line. A signal, such as a change of the window's size, ends no line.
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Some(Err(NOT_UTF8.to_owned())));
            }
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
}

const NOT_UTF8: &str = "the typed line is not UTF-8";

/// Reads up to a line feed or the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, String>>> {
    let mut line = Vec::new();
    let (mut has_begun, mut is_too_long) = (false, false);
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Another program may have left the terminal non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            break;
        }
        has_begun = true;
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let n_bytes = end.unwrap_or(bytes.len());
        is_too_long |= line.len() + n_bytes > MAX_LINE_BYTES;
        if !is_too_long {
            line.extend_from_slice(&bytes[..n_bytes]);
        }
        input.consume(end.map_or(n_bytes, |end| end + 1));
        if end.is_some() {
            break;
        }
    }
    if !has_begun {
        return Ok(None);
    }
    if is_too_long {
        return Ok(Some(Err(format!("the line has more than {} MiB", MAX_LINE_BYTES >> 20))));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8(line).map_err(|error| {
        format!("the line is not UTF-8 from byte {} on", error.utf8_error().valid_up_to() + 1)
    })))
}

const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    /// A reader that returns its bytes in pieces, as a pipe does.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(2) {
                let kind = [ErrorKind::Interrupted, ErrorKind::WouldBlock][self.1 / 2 % 2];
                return Err(kind.into());
            }
            let n_bytes = self.0.len().min(3).min(buffer.len());
            buffer[..n_bytes].copy_from_slice(&self.0[..n_bytes]);
            self.0 = &self.0[n_bytes..];
            Ok(n_bytes)
        }
    }

    #[test]
    fn case_28_a_line_of_invalid_utf8_is_one_line_of_several() {
        let bytes = b"first\r\n\nab\xff\xfe c\n\xc3\xa4 last";
        let mut input = BufReader::new(Pieces(bytes, 0));
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).expect("it can be read") {
            lines.push(line);
        }
        let wrong = Err("the line is not UTF-8 from byte 3 on".to_owned());
        let [first, empty, last] = ["first", "", "ä last"].map(|line| Ok(line.to_owned()));
        assert_eq!(lines, [first, empty, wrong, last]);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let long = MAX_LINE_BYTES as u64 + 1;
        let mut input = BufReader::new(io::repeat(b'x').take(long).chain(&b"\nnext\n"[..]));
        let line = read_line(&mut input).expect("it can be read").expect("a line");
        assert!(line.is_err_and(|error| error.contains("64 MiB")));
        assert_eq!(read_line(&mut input).expect("read"), Some(Ok("next".to_owned())));
    }
}
