//! `galley chat`: a conversation on the terminal or over pipes. A message that cannot be answered is left out of the
//! conversation, and the chat goes on.

mod lines;

use crate::args::ChatArgs;
use crate::console::{self, note, sentence};
use crate::load::{Loaded, chat_template, open_for, start};
use crate::request::by_flag;
use anyhow::{Context, Error, Result, ensure};
use galley_engine::{
    Event, FinishReason, ModelFiles, Prompt, Request, RequestHandle, SubmitError, TokenEvent,
};
use galley_model::chat::{ChatTemplate, Message};
use lines::Lines;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Why a message has no answer.
enum ChatFailure {
    /// This message cannot be answered; the next message may be.
    Message(Error),
    /// Nothing can be answered or printed any more.
    Chat(Error),
}

/// A conversation, and the engine that answers.
struct Chat<'a> {
    args: &'a ChatArgs,
    files: &'a ModelFiles,
    template: ChatTemplate,
    loaded: Loaded,
    interrupted: Arc<AtomicBool>,
    messages: Vec<Message>,
}

/// Runs the command.
pub(crate) fn chat(args: &ChatArgs) -> Result<()> {
    args.sampling.check()?;
    let files = open_for(&args.model)?;
    let template = chat_template(&files, args.chat_template.as_deref())?;
    let opening: Vec<Message> =
        args.system.iter().map(|text| Message::new("system", text.as_str())).collect();
    check_opening(&template, &opening)?;
    let drafting = args.draft.single(args.draft_length, args.kv_budget)?;
    let loaded = start(&files, &args.model, &drafting, files.config().max_context)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, SeqCst)).context("cannot listen for Ctrl-C")?;
    if std::io::stdin().is_terminal() {
        note(format_args!("{} on {}", args.model.model, loaded.device));
        note("Ctrl-C stops an answer, /new starts over, Ctrl-D ends.");
    }
    let mut lines = Lines::of_standard_input()?;
    let messages = opening.clone();
    let mut chat = Chat { args, files: &files, template, loaded, interrupted, messages };
    while let Some(line) = lines.next()? {
        let line = match line {
            Ok(line) => line,
            Err(reason) => {
                note(format_args!("error: {reason}\n(the line is left out)"));
                continue;
            }
        };
        match line.trim() {
            "" => {}
            "/new" => chat.messages.clone_from(&opening),
            _ => chat.hear(line)?,
        }
    }
    Ok(())
}

/// Refuses a system message that the template does not take: otherwise the template would refuse every message.
fn check_opening(template: &ChatTemplate, opening: &[Message]) -> Result<()> {
    let greeting = [Message::new("user", "Hello.")];
    let with_opening = [opening, &greeting].concat();
    match (template.render(&greeting, true), template.render(&with_opening, true)) {
        (Ok(_), Err(error)) => Err(error).context("--system (GALLEY_SYSTEM)"),
        _ => Ok(()),
    }
}

impl Chat<'_> {
    /// Answers a message. Message and answer both become part of the conversation, or neither does.
    fn hear(&mut self, text: String) -> Result<()> {
        self.messages.push(Message::new("user", text));
        match self.answer() {
            Ok(answer) => self.messages.push(Message::new("assistant", answer)),
            Err(ChatFailure::Message(error)) => {
                self.messages.pop();
                note(format_args!("error: {}", sentence(&error)));
                note("(the message is left out; /new starts over with an empty context)");
            }
            Err(ChatFailure::Chat(error)) => return Err(error),
        }
        Ok(())
    }

    fn answer(&self) -> Result<String, ChatFailure> {
        let (request, is_cut) = self.request().map_err(ChatFailure::Message)?;
        let mut handle = self.loaded.engine.submit(request).map_err(|error| match error {
            SubmitError::Invalid { .. } => ChatFailure::Message(by_flag(error)),
            _ => ChatFailure::Chat(error.into()),
        })?;
        self.interrupted.store(false, SeqCst);
        let (answer, reason) = print_answer(&mut handle, &self.interrupted)?;
        if is_cut && reason == FinishReason::Length {
            note("(the context is full; /new starts over with an empty one)");
        }
        Ok(answer)
    }

    /// A request for the longest answer that the flags allow and the context has room for, and whether the context is
    /// the smaller limit.
    fn request(&self) -> Result<(Request, bool)> {
        let rendered = self.template.render(&self.messages, true)?;
        let prompt = self.files.tokenizer.encode(&rendered, false)?;
        let (n_tokens, most) = (prompt.len(), self.loaded.engine.max_tokens_of_sequence());
        let room = most.saturating_sub(n_tokens);
        ensure!(
            room > 0,
            "the conversation has {n_tokens} tokens, and an answer fits after at most {}",
            most.saturating_sub(1)
        );
        let mut request = self
            .args
            .sampling
            .request(Prompt::Tokens(prompt))
            .chat(true)
            .drafting(self.args.draft.request());
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let is_cut = request.max_tokens.is_none_or(|wanted| wanted > room);
        let max_tokens = request.max_tokens.map_or(room, |wanted| wanted.min(room));
        request.max_tokens = Some(max_tokens);
        request.min_tokens = request.min_tokens.min(max_tokens);
        Ok((request, is_cut))
    }
}

/// Prints an answer while it is generated. An interrupt cancels the request; the text so far is kept.
fn print_answer(
    handle: &mut RequestHandle,
    interrupted: &AtomicBool,
) -> Result<(String, FinishReason), ChatFailure> {
    let mut answer = String::new();
    let mut stdout = console::stdout();
    let mut print = |text: &str| {
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        printed.map_err(|error| ChatFailure::Chat(error.into()))
    };
    loop {
        if interrupted.swap(false, SeqCst) {
            handle.cancel();
        }
        // A short wait, so that Ctrl-C is handled at once even during a long prefill.
        match handle.recv_timeout(Duration::from_millis(50)) {
            Some(Event::Token(TokenEvent { text, .. })) => {
                print(&text)?;
                answer.push_str(&text);
            }
            Some(Event::Finished { reason, .. }) => {
                print(match reason {
                    FinishReason::Cancelled => " [stopped]\n",
                    FinishReason::Length => " [length]\n",
                    FinishReason::Stop(_) => "\n",
                })?;
                return Ok((answer, reason));
            }
            Some(Event::Error(error)) => {
                if !answer.is_empty() {
                    print("\n")?;
                }
                return Err(ChatFailure::Message(error.into()));
            }
            _ => {}
        }
    }
}
