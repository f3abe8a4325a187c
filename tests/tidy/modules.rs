//! Imports run one way inside each crate: modules that lie side by side import each other in no circle, and the
//! modules of a large crate in the order of ARCHITECTURE.md's table.

use super::uses::{Crate, Graph};
use super::{files, metadata, read, root};
use std::collections::BTreeMap;
use std::path::Path;

/// A crate with more modules at its top has a row in the table.
const MAX_UNSORTED: usize = 8;

/// Modules in which circles are right, and the reason for each.
const RECURSIVE: [(&str, &str); 1] = [(
    "chat::jinja",
    "an interpreter: an expression calls a macro, a macro runs statements, and these evaluate expressions",
)];

/// Starts the table in ARCHITECTURE.md.
const MARK: &str = "<!-- tests/tidy/modules.rs parses this table -->";

/// Rows of the table: a crate, and its modules in groups. A module may import the modules of earlier groups.
fn order_table(text: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let names = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let table = text.split(MARK).nth(1).unwrap_or_default();
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|line| {
        let cells: Vec<_> = line.split('|').collect();
        let name = names(cells.get(1)?).pop()?;
        Some((name, cells.get(2)?.split('→').map(names).collect()))
    });
    rows.collect()
}

/// One complaint for each set of modules that import each other: its shortest circle, with a line of each import.
fn check_circles(graph: &Graph) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut reported: Vec<&str> = Vec::new();
    let circles = graph.modules().filter_map(|module| graph.circle(module));
    let mut circles: Vec<_> = circles.collect();
    circles.sort_by_key(Vec::len);
    for circle in circles {
        if circle.iter().any(|module| reported.contains(module)) {
            continue;
        }
        // Every module that imports one of the circle and is imported by it is part of the same knot.
        let first = circle[0];
        let knot = graph
            .modules()
            .filter(|module| graph.reaches(first, module) && graph.reaches(module, first));
        reported.extend(knot);
        let next = circle.iter().cycle().skip(1);
        let imports = circle
            .iter()
            .zip(next)
            .map(|(from, to)| format!("\n    {from} → {to}: {}", graph.evidence(from, to)));
        complaints.push(format!("a circle of imports{}", imports.collect::<String>()));
    }
    complaints
}

/// Compares the imports between the modules at the top of a crate with its row of the table.
fn check_order(graph: &Graph, groups: &[Vec<String>]) -> Vec<String> {
    let group_of =
        |module: &str| groups.iter().position(|group| group.iter().any(|name| name == module));
    let mut complaints = Vec::new();
    for module in graph.modules().filter(|module| group_of(module).is_none()) {
        complaints.push(format!("{module} is not in the table"));
    }
    for name in
        groups.iter().flatten().filter(|name| !graph.modules().any(|module| module == *name))
    {
        complaints.push(format!("{name} is in the table and not in the crate"));
    }
    for (from, to) in graph.edges() {
        if let (Some(importer), Some(imported)) = (group_of(from), group_of(to))
            && importer <= imported
        {
            let evidence = graph.evidence(from, to);
            complaints.push(format!(
                "{from} imports {to}, which is in no earlier group of the table: {evidence}"
            ));
        }
    }
    complaints
}

/// Complaints about one crate: circles anywhere in it, and the order at its top.
fn check_crate(tree: &Crate, groups: Option<&Vec<Vec<String>>>) -> Vec<String> {
    let graphs = tree.graphs();
    let circles = graphs.iter().flat_map(|(parent, graph)| {
        let is_recursive = RECURSIVE.iter().any(|(module, _)| *module == parent.join("::"));
        match check_circles(graph) {
            found if !is_recursive => found,
            found if found.is_empty() => {
                vec![format!("{} no longer belongs into RECURSIVE", parent.join("::"))]
            }
            _ => vec![],
        }
    });
    let mut complaints: Vec<_> = circles.collect();
    if let Some(top) = graphs.get(&Vec::new()) {
        match groups {
            Some(groups) => complaints.extend(check_order(top, groups)),
            None if top.modules().count() > MAX_UNSORTED => {
                complaints.push("has no row in the table".into())
            }
            None => {}
        }
    }
    complaints
}

#[test]
fn modules_import_one_way() {
    let files: BTreeMap<_, _> = files(&[".rs"]).into_iter().collect();
    let table = order_table(&read("ARCHITECTURE.md"));
    let metadata = metadata();
    let mut unused: Vec<_> = table.keys().collect();
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        unused.retain(|listed| *listed != name);
        let targets = package["targets"].as_array().expect("targets").iter();
        for target in targets.filter(|target| target["kind"][0] != "test") {
            let path = Path::new(target["src_path"].as_str().expect("a path"));
            let path = path
                .strip_prefix(root())
                .expect("a crate of the workspace")
                .to_string_lossy()
                .replace('\\', "/");
            let found = check_crate(&Crate::read(&path, &files), table.get(name));
            complaints.extend(found.into_iter().map(|complaint| format!("{path}: {complaint}")));
        }
    }
    complaints.extend(
        unused.iter().map(|name| format!("{name} is in the table and not in the workspace")),
    );
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Complaints about a made-up crate of these files.
fn complaints(files: &[(&str, &str)], row: Option<&str>) -> Vec<String> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let table = row.map(|row| {
        order_table(&format!("{MARK}\n\n| Crate | Modules |\n|---|---|\n| `x` | {row} |\n"))
    });
    check_crate(&Crate::read("src/lib.rs", &files), table.as_ref().map(|table| &table["x"]))
}

/// Negative controls: the check notices an import in every way to write it, and nothing that is no import.
#[test]
fn circles() {
    let root = (
        "src/lib.rs",
        "mod a;\nmod b;\n#[cfg(test)]\nmod tests;\npub use a::{Item, inner::Deep};\nuse b::f as g;",
    );
    let b = ("src/b.rs", "use crate::a::Item;\npub fn f() {}");
    let inner = ("src/a/inner.rs", "pub struct Deep;");
    let with = |text: &str| complaints(&[root, b, inner, ("src/a/mod.rs", text)], None);
    for import in [
        "use crate::b::f;",
        "use super::b;",
        "use crate::{\n    b::{self, f},\n};",
        "use {crate::b, std::fmt};",
        "use std::{fmt, mem}; pub(super) use crate::b::*;",
        "use crate::g;",
        "use super::*; fn h() { g() }",
        "fn h() { crate::b::f() }",
        "fn h() -> Vec<super::b::T> { vec![] }",
        "mod part { use super::super::b::f; }",
        "#[cfg(feature = \"x\")] use crate::b::f;",
        "#[cfg(not(test))] use crate::b::f;",
    ] {
        let text = format!("mod inner;\npub struct Item;\n{import}");
        let found = with(&text);
        assert_eq!(found.len(), 1, "{import}: {found:?}");
        assert!(found[0].contains("src/b.rs:1: crate::a::Item"), "{found:?}");
        assert!(found[0].contains("src/a/mod.rs:"), "{found:?}");
    }
    for text in [
        "use crate::Item;",
        "use super::other;",
        "// use crate::b::f;\n/// `crate::b::f`\nconst T: &str = \"crate::b\";",
        "#[cfg(test)]\nmod tests { use crate::b::f; }",
        "#[cfg(test)]\nuse crate::b::f;\nfn h() {}",
        "use b::f; // a crate of this name",
        "use super::*; fn h() { other() }",
    ] {
        let text = format!("mod inner;\npub struct Item;\n{text}");
        assert_eq!(with(&text), Vec::<String>::new(), "{text}");
    }

    // Re-exports count as the module of the item, from wherever they are imported.
    let deep = [
        root,
        ("src/b.rs", "use crate::Deep;"),
        inner,
        ("src/a/mod.rs", "pub mod inner;\nuse super::b;"),
    ];
    assert_eq!(complaints(&deep, None).len(), 1);

    // A circle between modules of a folder, and the shortest of two circles in one knot.
    let nested = [
        ("src/lib.rs", "mod a;"),
        ("src/a.rs", "mod b;\nmod c;\nmod d;\npub(crate) use b::B;"),
        ("src/a/b.rs", "use super::c;\npub struct B;"),
        ("src/a/c.rs", "use super::d::D;"),
        ("src/a/d.rs", "pub struct D(super::B, crate::a::c::C);"),
    ];
    let found = complaints(&nested, None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("c → d: src/a/c.rs:1") && !found[0].contains("b →"), "{found:?}");
    assert!(complaints(&nested[..4], None).is_empty(), "d is gone");

    // A circle in a listed module is right, and a listed module without one does not belong into the list.
    let listed = |text| {
        let top = ("src/lib.rs", "mod chat;");
        let chat = ("src/chat.rs", "mod jinja { mod a { use super::b; } mod b {} }");
        complaints(&[top, (chat.0, &chat.1.replace("mod b {}", text))], None)
    };
    assert!(listed("mod b { use super::a; }").is_empty());
    assert_eq!(listed("mod b {}"), ["chat::jinja no longer belongs into RECURSIVE"]);
}

/// Negative controls of the table.
#[test]
fn order() {
    let files = [
        ("src/lib.rs", "mod a; mod b; mod c;"),
        ("src/a.rs", "pub struct A;"),
        ("src/b.rs", "use crate::a::A;"),
        ("src/c.rs", "use crate::a::A;"),
    ];
    for (row, expected) in [
        ("`a` → `b`, `c`", None),
        ("`a` → `c` → `b`", None),
        ("`b` → `a` → `c`", Some("b imports a")),
        ("`a`, `b` → `c`", Some("b imports a")),
        ("`a` → `b`", Some("c is not in the table")),
        ("`a` → `b`, `c`, `d`", Some("d is in the table and not in the crate")),
    ] {
        let found = complaints(&files, Some(row));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{row}: {found:?}");
        assert!(
            found.iter().all(|text| expected.is_some_and(|expected| text.starts_with(expected))),
            "{found:?}"
        );
    }
    let modules: Vec<_> = (0..=MAX_UNSORTED).map(|i| format!("mod m{i} {{}}")).collect();
    assert_eq!(complaints(&[("src/lib.rs", &modules.concat())], None), ["has no row in the table"]);
    assert!(complaints(&[("src/lib.rs", &modules[1..].concat())], None).is_empty());
}
