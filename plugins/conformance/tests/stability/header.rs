//! The changes that a later header may make to an earlier one: additions at the ends of structs.

use std::collections::BTreeMap;

/// Complaints about `now`, unless it is `then` with more fields at the ends of structs.
pub(crate) fn layout_growth(then: &str, now: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines: Vec<&str> = now.lines().collect();
    let mut sizes_then = BTreeMap::new();
    for line in then.lines() {
        let Some((name, size, align)) = size_of(line) else {
            if !lines.contains(&line) {
                complaints.push(format!("{line} has moved or is gone"));
            }
            continue;
        };
        sizes_then.insert(name, size);
        match lines.iter().find_map(|line| size_of(line).filter(|(other, ..)| *other == name)) {
            None => complaints.push(format!("{name} is gone")),
            Some((_, size_now, align_now)) if size_now < size || align_now != align => {
                complaints.push(format!("{name} is smaller, or aligned otherwise"));
            }
            Some(_) => {}
        }
    }
    for line in lines {
        let Some((field, offset)) = line.split_once(' ').filter(|_| size_of(line).is_none()) else {
            continue;
        };
        let name = field.split('.').next().unwrap_or_default();
        let is_new = !then.lines().any(|line| line.starts_with(&format!("{field} ")));
        let begins = offset.parse().unwrap_or(0_u64);
        if is_new && sizes_then.get(name).is_some_and(|&size| begins < size) {
            complaints.push(format!("{field} is new and not at the end"));
        }
    }
    complaints
}

/// Parses `name size 8 align 8`.
fn size_of(line: &str) -> Option<(&str, u64, u64)> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [name, "size", size, "align", align] => {
            Some((name, size.parse().ok()?, align.parse().ok()?))
        }
        _ => None,
    }
}

/// Complaints about the header `now`, unless it is `then` with more fields at the ends of structs.
/// Types, signatures, constants and ids must not change.
pub(crate) fn growth(then: &str, now: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let (structs_then, structs_now) = (structs(then), structs(now));
    for (name, fields) in &structs_then {
        let is_kept = structs_now.get(name).is_some_and(|now| now.starts_with(fields));
        if !is_kept {
            complaints.push(format!("{name} has lost, moved or retyped a field"));
        }
    }
    let now = constants(now);
    for (name, value) in constants(then) {
        if name != "GD_ABI_MINOR" && now.get(&name) != Some(&value) {
            complaints.push(format!("{name} is {:?}, and was {value:?}", now.get(&name)));
        }
    }
    complaints
}

/// The declared fields of every struct, by the struct's name.
fn structs(header: &str) -> BTreeMap<String, Vec<String>> {
    let text = plain(header);
    let mut all = BTreeMap::new();
    for (at, _) in text.match_indices("struct ") {
        let (Some(open), Some(end)) = (text[at..].find('{'), text[at..].find(';')) else {
            continue;
        };
        if end < open {
            continue; // a declaration
        }
        let before = text[at + "struct ".len()..at + open].trim();
        let Some(length) = text[at + open..].find('}') else { continue };
        let (body, rest) = text[at + open + 1..].split_at(length - 1);
        let after = rest[1..].split(';').next().unwrap_or_default().trim();
        let name = if before.is_empty() { after } else { before };
        let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
        all.insert(name.to_owned(), fields.map(str::to_owned).collect());
    }
    all
}

/// Constants of the forms `NAME = value` in enums and `#define NAME value`.
fn constants(header: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in header.lines() {
        let mut words = line.strip_prefix("#define ").unwrap_or_default().splitn(2, ' ');
        if let (Some(name), Some(value)) = (words.next(), words.next())
            && !name.contains('(')
        {
            all.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    let text = plain(header);
    for body in text.split("enum {").skip(1).filter_map(|rest| rest.split('}').next()) {
        for (name, value) in body.split(',').filter_map(|part| part.split_once('=')) {
            all.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    all
}

/// The header without comments and preprocessor lines, and with single spaces.
fn plain(header: &str) -> String {
    let mut parts = header.split("/*");
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        code.push_str(part.split_once("*/").map_or("", |(_, rest)| rest));
    }
    let lines = code.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_header_that_does_more_than_grow_is_noticed() {
    let header = include_str!("../../../abi/include/galley_drafter.h");
    let n_structs = header.matches("struct_size;").count() + 7; // gd_str, five handles, gd_option
    assert_eq!(structs(header).len(), n_structs, "{:?}", structs(header).keys());
    assert!(constants(header).len() > 30);
    assert_eq!(growth(header, header), [""; 0]);
    let grown = header.replace("  uint64_t n_parameters;", "  uint64_t n_parameters, later;");
    assert_eq!(
        growth(header, &grown).len(),
        1,
        "a name added to a declaration is not seen as growth"
    );
    for (from, to, n) in [
        ("  uint64_t n_parameters;\n", "  uint64_t n_parameters;\n  uint64_t later;\n", 0),
        ("#define GD_ABI_MINOR 1", "#define GD_ABI_MINOR 2", 0),
        ("  uint64_t n_parameters;\n", "", 1),
        ("uint32_t max_rows; ", "uint64_t max_rows; ", 1),
        ("gd_queue, uint32_t min_n, uint32_t max_n", "gd_queue, uint32_t max_n, uint64_t min_n", 1),
        ("GD_INVALID = -2", "GD_INVALID = -3", 1),
        ("galley.views/1\"\n", "galley.views/2\"\n", 1),
        ("  GD_PANIC = -5,", "", 1),
    ] {
        let changed = header.replace(from, to);
        assert_ne!(changed, header, "{from} is in the header");
        assert_eq!(growth(header, &changed).len(), n, "{from} to {to}");
    }
}

#[test]
fn a_layout_that_does_more_than_grow_is_noticed() {
    let then = "a size 16 align 8\na.x 0\na.y 8\n";
    for (now, n) in [
        (then, 0),
        ("a size 24 align 8\na.x 0\na.y 8\na.z 16\nb size 8 align 8\nb.x 0\n", 0),
        ("a size 8 align 8\na.x 0\n", 2),
        ("a size 16 align 8\na.y 0\na.x 8\n", 2),
        ("a size 24 align 8\na.x 0\na.y 8\na.z 12\n", 1),
        ("a size 16 align 4\na.x 0\na.y 8\n", 1),
        ("b size 16 align 8\nb.x 0\nb.y 8\n", 3),
    ] {
        assert_eq!(layout_growth(then, now).len(), n, "{now}: {:?}", layout_growth(then, now));
    }
}
