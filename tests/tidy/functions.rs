//! No function has more than [`MAX_LINES`] lines, in Rust, C, C++ and CUDA.
//!
//! The check reads braces and not the language. Comments, strings, characters and preprocessor lines become blanks; of the
//! remaining text, a brace begins a function if the text before it is a function's signature. Closures, lambdas and
//! nested functions count to the function around them.

use super::{files, hold};

const MAX_LINES: usize = 100;

/// A function's first line, and its number of lines.
#[derive(Debug, PartialEq)]
struct Function {
    line: usize,
    n_lines: usize,
}

/// One complaint for each function that is too long.
fn check_functions(path: &str, text: &str) -> Vec<String> {
    let is_rust = path.ends_with(".rs");
    let Some(functions) = functions(&code_of(text, is_rust), is_rust) else {
        return vec!["its braces do not balance, so that its functions cannot be read".into()];
    };
    let long = functions.iter().filter(|function| function.n_lines > MAX_LINES);
    long.map(|Function { line, n_lines }| {
        format!("line {line}: a function of {n_lines} lines: split it by stage")
    })
    .collect()
}

/// The text with blanks for comments, strings, characters and preprocessor lines. Line ends stay.
fn code_of(text: &str, is_rust: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_text(&chars, at, is_rust).unwrap_or(at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        code.push(' ');
        code.extend(chars[at..end].iter().filter(|c| **c == '\n'));
        at = end;
    }
    code
}

/// The end of the comment, string, character or preprocessor line that begins at `at`.
fn end_of_text(chars: &[char], at: usize, is_rust: bool) -> Option<usize> {
    let end_of_line = |from: usize| {
        let rest = chars[from..].iter().position(|c| *c == '\n');
        rest.map_or(chars.len(), |n| from + n)
    };
    let next = chars.get(at + 1).copied().unwrap_or('\n');
    let before = &chars[..at];
    match chars[at] {
        '/' if next == '/' => Some(end_of_line(at)),
        '/' if next == '*' => Some(end_of_comment(chars, at, is_rust)),
        '"' => {
            let n_hashes = before.iter().rev().take_while(|c| **c == '#').count();
            let prefix = before[..at - n_hashes].last();
            let is_raw = prefix == Some(if is_rust { &'r' } else { &'R' });
            Some(end_of_string(chars, at, '"', is_raw.then_some(n_hashes)))
        }
        '\'' if is_rust && next != '\\' && chars.get(at + 2) != Some(&'\'') => None, // a lifetime
        '\'' if !is_rust && before.last().is_some_and(char::is_ascii_hexdigit) => None, // 1'000
        '\'' => Some(end_of_string(chars, at, '\'', None)),
        '#' if !is_rust => {
            let is_first = before.iter().rev().find(|c| !" \t".contains(**c));
            let mut end = end_of_line(at);
            while chars[end - 1] == '\\' && end < chars.len() {
                end = end_of_line(end + 1);
            }
            is_first.is_none_or(|c| *c == '\n').then_some(end)
        }
        _ => None,
    }
}

/// The end of a comment between `/*` and `*/`. Such comments nest in Rust.
fn end_of_comment(chars: &[char], start: usize, nests: bool) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < chars.len() && depth > 0 {
        let pair = (chars[at], chars.get(at + 1));
        match pair {
            ('*', Some('/')) => depth -= 1,
            ('/', Some('*')) if nests => depth += 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    at.min(chars.len())
}

/// The end of a string or character that begins with `quote`. A raw string ends with its number of hashes, and has no escapes.
fn end_of_string(chars: &[char], start: usize, quote: char, raw: Option<usize>) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        let hashes = &chars[at + 1..chars.len().min(at + 1 + raw.unwrap_or(0))];
        if chars[at] == quote && hashes.iter().all(|c| *c == '#') {
            return at + 1 + hashes.len();
        }
        at += if chars[at] == '\\' && raw.is_none() { 2 } else { 1 };
    }
    chars.len()
}

/// The outermost functions of a text without comments and strings. `None` if braces do not balance.
fn functions(code: &str, is_rust: bool) -> Option<Vec<Function>> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    let mut function = None; // its start, and the number of braces around it
    let mut parens_outside = Vec::new(); // open parentheses before each open brace
    let (mut start, mut n_parens) = (0, 0_usize); // of the statement or declaration
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => n_parens += 1,
            ')' | ']' => n_parens = n_parens.checked_sub(1)?,
            '{' => {
                if function.is_none() && n_parens == 0 {
                    let signature = start_of_signature(&code[start..at], is_rust);
                    function = signature.map(|from| (start + from, parens_outside.len()));
                }
                parens_outside.push(n_parens);
                (start, n_parens) = (at + 1, 0);
            }
            '}' => {
                n_parens = parens_outside.pop()?;
                start = at + 1;
                if let Some((from, level)) = function
                    && level == parens_outside.len()
                {
                    let (line, last) = (line_of(from), line_of(at));
                    found.push(Function { line, n_lines: last + 1 - line });
                    function = None;
                }
            }
            ';' if n_parens == 0 => start = at + 1,
            _ => {}
        }
    }
    parens_outside.is_empty().then_some(found)
}

/// The place in `head`, the text before a brace, at which the signature of a function begins.
fn start_of_signature(head: &str, is_rust: bool) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if is_rust {
        let mut words = head.match_indices("fn ").map(|(at, _)| at);
        return words.find(|at| !head[..*at].ends_with(is_word));
    }
    let scopes = ["namespace", "class", "struct", "union", "enum"];
    let is_scope = head.split(|c: char| !is_word(c)).any(|word| scopes.contains(&word));
    let end = head.trim_end();
    let is_function = end.contains('(') && !end.ends_with('=') && (!is_scope || end.ends_with(')'));
    is_function.then_some(head.len() - head.trim_start().len())
}

#[test]
fn functions_are_short() {
    hold(&files(&[".rs", ".c", ".h", ".cpp", ".cu", ".cuh"]), check_functions);
}

/// Negative controls: long functions are noticed in all languages, wherever they stand.
#[test]
fn long_functions() {
    let lines = |n: usize| "  x;\n".repeat(n);
    // Each body is between two lines, which count.
    let heads = [
        ("a.rs", "fn f() {\n", "}\n"),
        ("a.rs", "pub(crate) const unsafe fn f<T>(x: [u8; 2]) -> [u8; 2] {\n", "}\n"),
        ("a.rs", "impl X {\n/// Text.\n#[test]\nfn f(&self) {\n", "}\n}\n"),
        ("a.rs", "mod m {\nmacro! {\nfn f() {\n", "}\n}\n}\n"),
        ("a.cu", "GK_LAUNCHER(name)(const gk_call *call) {\n", "}\n"),
        ("a.cu", "__global__ void __launch_bounds__(128) kernel(gk_call call) {\n", "}\n"),
        ("a.cuh", "namespace {\nstruct X {\nX(int a) : a(a), b(1) {\n", "}\n};\n}\n"),
        ("a.h", "struct point f(int x) {\n", "}\n"),
        ("a.cpp", "extern \"C\" {\nint f() const {\n", "}\n}\n"),
    ];
    for (path, head, end) in heads {
        let n_complaints = |n: usize| {
            check_functions(path, &format!("use y;\n{head}{}{end}use z;\n", lines(n))).len()
        };
        assert_eq!(n_complaints(MAX_LINES - 2), 0, "{head}");
        assert_eq!(n_complaints(MAX_LINES - 1), 1, "{head}");
    }
    let template = format!("template <int N>\nvoid f() {{\n{}}}\n", lines(MAX_LINES - 2));
    assert_eq!(
        check_functions("a.cu", &template),
        ["line 1: a function of 101 lines: split it by stage"]
    );
    let half = lines(MAX_LINES / 2);
    let closure = format!("fn f() {{\nlet g = |x| {{\n{half}}};\ng(|| {{\n{half}}});\n}}\n");
    assert_eq!(check_functions("a.rs", &closure).len(), 1, "closures count");
    let lambda =
        format!("void f() {{\nauto g = [&](int x) {{\n{half}}};\nif (g) {{\n{half}}}\n}}\n");
    assert_eq!(check_functions("a.cu", &lambda).len(), 1, "lambdas count");
}

#[test]
fn only_braces_of_code_count() {
    let long = "  x;\n".repeat(MAX_LINES);
    let texts = [
        (
            "a.rs",
            "// }\n/* } /* } */ } */ let s = \"}\\\"}\"; let r = r#\"}\"}\"#; let c = ('}', '\\'', '\\\\', b'}');\n",
        ),
        ("a.rs", "fn_pointer(f as fn(u8) -> u8); fn g<'a>(x: &'a str) -> &'a str { x }\n"),
        (
            "a.cu",
            "// }\n/* } /* } */ const char *s = \"}\\\"}\"; char c = '}', d = '\\''; int n = 1'000;\n",
        ),
        ("a.cu", "#define OPEN(x) { \\\n  {\n#pragma unroll\n"),
    ];
    for (path, text) in texts {
        let head = if path == "a.rs" { "fn f()" } else { "void f()" };
        let inside = format!("{head} {{\n{text}{long}}}\n");
        assert_eq!(check_functions(path, &inside).len(), 1, "{text}");
    }
    // Two short functions are not one long function, and other scopes are no functions.
    let half = "  x;\n".repeat(MAX_LINES / 2);
    let two = format!("void f() {{\n{half}}}\nvoid g() {{\n{half}}}\n");
    let rust = format!("fn f() {{\n{half}}}\nfn g() {{\n{half}}}\n");
    let table =
        format!("static const int TABLE[] = {{\n{long}}};\nstruct alignas(16) X {{\n{long}}};\n");
    let traits = format!("impl Fn(u8) for X {{\n{long}}}\nconst X: fn(u8) = {{\n{long}}};\n");
    for (path, text) in [("a.cu", two), ("a.rs", rust), ("a.h", table), ("a.rs", traits)] {
        assert!(check_functions(path, &text).is_empty(), "{text}");
    }
    assert_eq!(check_functions("a.rs", "fn f() {\n").len(), 1, "no end");
}
