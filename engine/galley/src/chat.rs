//! `galley chat`: a conversation on the terminal.

use crate::args::ChatArgs;
use crate::load::{Files, start};
use anyhow::{Context, Result, bail};
use galley_engine::{Event, FinishReason, Prompt, Request, RequestHandle};
use galley_model::chat::Message;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Runs the command.
pub(crate) fn chat(args: &ChatArgs) -> Result<()> {
    let files = Files::open_for(&args.model)?;
    let template = files.chat_template()?;
    let drafting = args.draft.config(args.draft_length, args.draft_length, args.kv_budget)?;
    let loaded = start(&files, &args.model, &drafting, files.config().max_context)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, SeqCst)).context("cannot listen for Ctrl-C")?;
    let mut editor = DefaultEditor::new().context("cannot read from the terminal")?;
    if std::io::stdin().is_terminal() {
        println!("{} on {}", args.model.model, loaded.device);
        println!("Ctrl-C stops an answer, /new starts over, Ctrl-D ends.");
    }
    let opening: Vec<Message> =
        args.system.iter().map(|text| Message::new("system", text.as_str())).collect();
    let mut messages = opening.clone();
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            // Ctrl-C on a line abandons the line.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        match line.trim() {
            "" => continue,
            "/new" => {
                messages.clone_from(&opening);
                continue;
            }
            _ => {}
        }
        let _ = editor.add_history_entry(line.as_str());
        messages.push(Message::new("user", line));
        let prompt = Prompt::Rendered(template.render(&messages, true)?);
        let request = Request { drafting: args.draft.request(), ..args.sampling.request(prompt) };
        let mut handle = match loaded.engine.submit(request) {
            Ok(handle) => handle,
            Err(error) => {
                eprintln!("error: {error}\n(/new starts over with an empty context)");
                messages.pop();
                continue;
            }
        };
        interrupted.store(false, SeqCst);
        let answer = print_answer(&mut handle, &interrupted)?;
        messages.push(Message::new("assistant", answer));
    }
}

/// Prints an answer as it comes; an interrupt cancels it and keeps what there is.
fn print_answer(handle: &mut RequestHandle, interrupted: &AtomicBool) -> Result<String> {
    let mut answer = String::new();
    let mut stdout = std::io::stdout();
    loop {
        if interrupted.swap(false, SeqCst) {
            handle.cancel();
        }
        // A short wait, so that Ctrl-C is heard within a blink even while a long prompt is read.
        match handle.recv_timeout(Duration::from_millis(50)) {
            Some(Event::Token { text, .. }) => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
                answer.push_str(&text);
            }
            Some(Event::Finished { reason, .. }) => {
                match reason {
                    FinishReason::Cancelled => println!(" [stopped]"),
                    FinishReason::Length => println!(" [length]"),
                    FinishReason::Stop(_) => println!(),
                }
                return Ok(answer);
            }
            Some(Event::Error { message }) => bail!("{message}"),
            None => {}
        }
    }
}
