//! Any text compiles as a chat template or is refused. A compiled template renders or fails.
//!
//! RUSTC_BOOTSTRAP=1 cargo fuzz run chat_template fuzz/corpus/chat_template fuzz/seeds/chat_template \
//!     -- -timeout=60
#![no_main]

use galley_model::chat::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source, None, Some("<s>".into()), None) else { return };
    let chat = [
        Message::new("system", "Be brief."),
        Message::new("user", "Hi"),
        Message::new("assistant", "Hello."),
    ];
    for add_generation_prompt in [false, true] {
        let _ = template.render(&chat, add_generation_prompt);
    }
});
