//! The structs of the header have the sizes and offsets of the golden file, which tests/header.rs compares with C.

use crate::event::{galley_event, galley_logprob};
use crate::strings::{galley_string, galley_tokens};
use std::fmt::Write;
use std::mem::offset_of;

macro_rules! layout {
    ($($name:ident { $($field:ident),* })*) => {{
        let mut text = String::new();
        $(
            writeln!(text, "{} {}", stringify!($name), size_of::<$name>()).expect("memory");
            $(
                let (name, field) = (stringify!($name), stringify!($field));
                writeln!(text, "{name}.{field} {}", offset_of!($name, $field)).expect("memory");
            )*
        )*
        text
    }};
}

#[test]
fn rust_and_the_golden_file_agree() {
    let layout = layout! {
        galley_string { ptr, len, id }
        galley_tokens { ptr, len, id }
        galley_logprob { token, logprob }
        galley_event {
            size, kind, id, tag, flags, index, token, logprob, drafter, position, text, text_len, top, n_top, json,
            json_len, ticket
        }
    };
    let golden = include_str!("../layout.txt");
    let structs: String = golden
        .lines()
        .filter(|line| line.starts_with("galley_"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(layout, structs);
    assert_ne!(layout, structs.replace("ticket 96", "ticket 88"), "a control");
}
