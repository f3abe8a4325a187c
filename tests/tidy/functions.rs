//! No function has more than [`MAX_LINES`] lines, in Rust, C, C++ and CUDA.
//!
//! The check reads braces and not the language: a brace begins a function if the tokens before it are a function's signature.
//! Closures, lambdas and nested functions count to the function around them.

use super::tokens::{Language, Token, tokens_of};
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
    let language = if path.ends_with(".rs") { Language::Rust } else { Language::C };
    let Some(functions) = functions(&tokens_of(text, language), language) else {
        return vec!["its braces do not balance, so that its functions cannot be read".into()];
    };
    let long = functions.iter().filter(|function| function.n_lines > MAX_LINES);
    long.map(|Function { line, n_lines }| {
        format!("line {line}: a function of {n_lines} lines: split it by stage")
    })
    .collect()
}

/// The outermost functions of a text. `None` if braces do not balance.
fn functions(tokens: &[Token<'_>], language: Language) -> Option<Vec<Function>> {
    let mut found = Vec::new();
    let mut function = None; // its first line, and the number of braces around it
    let mut parens_outside = Vec::new(); // open parentheses before each open brace
    let (mut start, mut n_parens) = (0, 0_usize); // of the statement or declaration
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" => n_parens += 1,
            ")" | "]" => n_parens = n_parens.checked_sub(1)?,
            "{" => {
                if function.is_none() && n_parens == 0 {
                    let signature = signature(&tokens[start..at], language);
                    function = signature.map(|first| (first.line, parens_outside.len()));
                }
                parens_outside.push(n_parens);
                (start, n_parens) = (at + 1, 0);
            }
            "}" => {
                n_parens = parens_outside.pop()?;
                start = at + 1;
                if let Some((line, level)) = function
                    && level == parens_outside.len()
                {
                    found.push(Function { line, n_lines: token.line + 1 - line });
                    function = None;
                }
            }
            ";" if n_parens == 0 => start = at + 1,
            _ => {}
        }
    }
    parens_outside.is_empty().then_some(found)
}

/// The first token of a function's signature in `head`, the tokens before a brace.
fn signature<'a>(head: &[Token<'a>], language: Language) -> Option<Token<'a>> {
    let has = |text: &str| head.iter().any(|token| token.text == text);
    let ends_with = |text: &str| head.last().is_some_and(|token| token.text == text);
    if language == Language::Rust {
        // The type of a function pointer is no signature: a parenthesis follows its `fn`.
        let first = head.windows(2).find(|pair| pair[0].text == "fn" && pair[1].text != "(");
        return first.map(|pair| pair[0]);
    }
    let is_scope = ["namespace", "class", "struct", "union", "enum"].into_iter().any(has);
    let is_function = has("(") && !ends_with("=") && (!is_scope || ends_with(")"));
    head.first().copied().filter(|_| is_function)
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
