//! The modules of a crate, and the imports between modules that lie side by side.

use super::tokens::{Token, group, tokens, without_tests};
use std::collections::{BTreeMap, BTreeSet};

/// A path from the root of a crate.
type Path = Vec<String>;

/// A path in the code of a module.
struct Use {
    path: Path,
    line: usize,
    /// The name that a `use` gives to the item: `*` for all items of the path, None outside of `use`.
    name: Option<String>,
}

/// The non-test code of a module, without the modules in it.
#[derive(Default)]
struct Module {
    file: String,
    words: BTreeSet<String>,
    uses: Vec<Use>,
}

impl Module {
    /// The path that a `use` gives this name to.
    fn import(&self, name: &str) -> Option<&Path> {
        let import = self.uses.iter().find(|import| import.name.as_deref() == Some(name));
        import.map(|import| &import.path)
    }

    /// Modules of which a `use` imports every item.
    fn globs(&self) -> impl Iterator<Item = &Path> {
        self.uses
            .iter()
            .filter(|import| import.name.as_deref() == Some("*"))
            .map(|import| &import.path)
    }
}

/// The modules of a crate by their paths.
pub(crate) struct Crate {
    modules: BTreeMap<Path, Module>,
}

impl Crate {
    /// Reads the modules of the crate with this root, from files by their paths.
    pub(crate) fn read(root: &str, files: &BTreeMap<String, String>) -> Self {
        let mut modules = BTreeMap::new();
        let mut queue = vec![(Path::new(), root.to_owned())];
        while let Some((path, file)) = queue.pop() {
            let Some(text) = files.get(&file) else { continue };
            let mut reader = Reader {
                file: &file,
                is_root: path.is_empty(),
                modules: &mut modules,
                files: vec![],
            };
            reader.read(path, &without_tests(&tokens(text)));
            let found = reader.files;
            let exists = |(path, candidates): (Path, Vec<String>)| {
                Some((path, candidates.into_iter().find(|file| files.contains_key(file))?))
            };
            queue.extend(found.into_iter().filter_map(exists));
        }
        let mut tree = Self { modules };
        tree.keep_paths_of_the_crate();
        tree
    }

    /// Drops paths of other crates: a path that starts with no keyword is one of this crate if it starts with a module
    /// of the same file.
    fn keep_paths_of_the_crate(&mut self) {
        let paths: BTreeSet<Path> = self.modules.keys().cloned().collect();
        for (own, module) in &mut self.modules {
            module.uses.retain_mut(|found| match found.path[0].as_str() {
                "crate" | "self" | "super" => {
                    let mut path = if found.path[0] == "crate" { vec![] } else { own.clone() };
                    for segment in found.path.drain(..) {
                        match segment.as_str() {
                            "crate" | "self" => {}
                            "super" => drop(path.pop()),
                            _ => path.push(segment),
                        }
                    }
                    found.path = path;
                    true
                }
                first => {
                    let child = [&own[..], &[first.to_owned()]].concat();
                    let is_child = paths.contains(&child);
                    found.path.splice(0..0, own.iter().cloned());
                    is_child
                }
            });
        }
    }

    /// The module that defines the item with this path. A re-export leads to the module of the item.
    fn module_of(&self, path: &[String]) -> Path {
        let mut path = path.to_vec();
        // Imports of names that stand for themselves would lead around for ever.
        for _ in 0..8 {
            let n = (0..=path.len())
                .rev()
                .find(|&n| self.modules.contains_key(&path[..n]))
                .unwrap_or(0);
            let (Some(module), Some(name)) = (self.modules.get(&path[..n]), path.get(n)) else {
                return path[..n].to_vec();
            };
            let defines = |glob: &&Path| {
                self.modules.get(*glob).is_some_and(|module| module.words.contains(name))
            };
            let next = match (module.import(name), module.globs().find(defines)) {
                (Some(import), _) => [import, &path[n + 1..]].concat(),
                (None, Some(glob)) if glob[..] != path[..n] => [glob, &path[n..]].concat(),
                _ => return path[..n].to_vec(),
            };
            path = next;
        }
        path
    }

    /// Modules that `module` imports, each with the line and the path of the import.
    fn imports(&self, module: &Module) -> Vec<(Path, usize, String)> {
        let mut imports = Vec::new();
        for found in &module.uses {
            let text = found.path.join("::");
            let target = self.module_of(&found.path);
            if found.name.as_deref() == Some("*") {
                // Names that the other module has imported, and that this one has from there.
                let others = self.modules.get(&target).into_iter().flat_map(|other| &other.uses);
                let names = others.filter_map(|other| other.name.as_ref());
                for name in names
                    .filter(|name| module.words.contains(*name) && module.import(name).is_none())
                {
                    let path = [&target[..], std::slice::from_ref(name)].concat();
                    imports.push((
                        self.module_of(&path),
                        found.line,
                        format!("crate::{text}::* ({name})"),
                    ));
                }
                imports.push((target, found.line, format!("crate::{text}::*")));
            } else {
                imports.push((target, found.line, format!("crate::{text}")));
            }
        }
        imports
    }

    /// For each module with modules in it, the imports between these.
    pub(crate) fn graphs(&self) -> BTreeMap<Path, Graph> {
        let mut graphs = BTreeMap::<Path, Graph>::new();
        for path in self.modules.keys().filter(|path| !path.is_empty()) {
            let (name, parent) = path.split_last().expect("a module below the root");
            graphs.entry(parent.to_vec()).or_default().imports.entry(name.clone()).or_default();
        }
        for (path, module) in &self.modules {
            for (target, line, text) in self.imports(module) {
                let n = path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (path.get(n), target.get(n)) {
                    let graph = graphs.entry(path[..n].to_vec()).or_default();
                    let imports = graph.imports.entry(from.clone()).or_default();
                    imports
                        .entry(to.clone())
                        .or_insert_with(|| format!("{}:{line}: {text}", module.file));
                }
            }
        }
        graphs
    }
}

/// Reads the modules of one file.
struct Reader<'a> {
    file: &'a str,
    /// Whether the file is the root of its crate: its modules lie beside it.
    is_root: bool,
    modules: &'a mut BTreeMap<Path, Module>,
    /// Modules in other files, with the paths that the files may have.
    files: Vec<(Path, Vec<String>)>,
}

impl Reader<'_> {
    fn read(&mut self, path: Path, tokens: &[Token<'_>]) {
        let mut module = Module { file: self.file.to_owned(), ..Module::default() };
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        let mut at = 0;
        while at < tokens.len() {
            match (text(at), text(at + 1), text(at + 2)) {
                ("mod", name, ";") => {
                    let child = [&path[..], &[name.to_owned()]].concat();
                    self.files.push((child, self.candidates(name, &tokens[..at])));
                    at += 3;
                }
                ("mod", name, "{") if name != "$" => {
                    let n_tokens = group(&tokens[at + 2..]);
                    let child = [&path[..], &[name.to_owned()]].concat();
                    self.read(child, &tokens[at + 2..at + 2 + n_tokens]);
                    at += 2 + n_tokens;
                }
                ("use", next, _) if next != "<" => {
                    let n_tokens =
                        tokens[at..].iter().take_while(|token| token.text != ";").count();
                    use_tree(&tokens[at + 1..at + n_tokens], &[], &mut module.uses);
                    at += n_tokens;
                }
                ("crate" | "super" | "self", "::", _) => {
                    let n_tokens = path_length(&tokens[at..]);
                    let segments = tokens[at..at + n_tokens].iter().step_by(2);
                    let path = segments.map(|token| token.text.to_owned()).collect();
                    module.uses.push(Use { path, line: tokens[at].line, name: None });
                    at += n_tokens;
                }
                (word, _, _) => {
                    module.words.insert(word.to_owned());
                    at += 1;
                }
            }
        }
        self.modules.insert(path, module);
    }

    /// Files that a `mod name;` after these tokens may mean.
    fn candidates(&self, name: &str, before: &[Token<'_>]) -> Vec<String> {
        let (folder, stem) = self.file.rsplit_once('/').unwrap_or(("", self.file));
        if let [.., mark, equals, literal, _] = before
            && (mark.text, equals.text) == ("path", "=")
        {
            return vec![format!("{folder}/{}", literal.literal().unwrap_or_default())];
        }
        let folder = match stem {
            _ if self.is_root => folder.to_owned(),
            "mod.rs" => folder.to_owned(),
            stem => format!("{folder}/{}", stem.trim_end_matches(".rs")),
        };
        vec![format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
    }
}

/// Tokens of the path at the start of `tokens`: words with `::` between them.
fn path_length(tokens: &[Token<'_>]) -> usize {
    let is_word =
        |token: &Token<'_>| token.text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let more =
        tokens[1..].chunks_exact(2).take_while(|pair| pair[0].text == "::" && is_word(&pair[1]));
    1 + 2 * more.count()
}

/// Adds the paths of a `use` without its `use` and `;`, below `parent`.
fn use_tree(tokens: &[Token<'_>], parent: &[String], uses: &mut Vec<Use>) {
    let mut path = parent.to_vec();
    let mut name = None;
    let mut at = 0;
    while at < tokens.len() {
        let Token { text, line } = tokens[at];
        match text {
            "{" => {
                let n_tokens = group(&tokens[at..]);
                for branch in branches(&tokens[at + 1..at + n_tokens - 1]) {
                    use_tree(branch, &path, uses);
                }
                return;
            }
            "::" => {}
            "as" => {
                name = tokens.get(at + 1).map(|token| token.text.to_owned());
                at += 1;
            }
            "*" => name = Some("*".to_owned()),
            "self" if !path.is_empty() => {}
            _ => path.push(text.to_owned()),
        }
        at += 1;
        if at == tokens.len() && !path.is_empty() {
            let name = name.take().or_else(|| path.last().cloned());
            uses.push(Use { path: path.clone(), line, name });
        }
    }
}

/// Parts of a list between commas, without those of lists in it.
fn branches<'a, 'b>(tokens: &'a [Token<'b>]) -> Vec<&'a [Token<'b>]> {
    let mut branches = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < tokens.len() {
        match tokens[at].text {
            "{" => at += group(&tokens[at..]),
            "," => {
                branches.push(&tokens[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    branches.push(&tokens[start..]);
    branches
}

/// Imports between the modules of one module.
#[derive(Default)]
pub(crate) struct Graph {
    /// The modules, and for each that it imports one import.
    imports: BTreeMap<String, BTreeMap<String, String>>,
}

impl Graph {
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.imports.keys().map(String::as_str)
    }

    /// Pairs of an importing and an imported module.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imports
            .iter()
            .flat_map(|(from, imports)| imports.keys().map(|to| (from.as_str(), to.as_str())))
    }

    /// File, line and path of one import.
    pub(crate) fn evidence(&self, from: &str, to: &str) -> &str {
        &self.imports[from][to]
    }

    /// Whether a module imports another one, directly or through other modules.
    pub(crate) fn reaches(&self, from: &str, to: &str) -> bool {
        self.path(from, to).is_some()
    }

    /// The modules of the shortest circle through a module, in the order of the imports, from the module on.
    pub(crate) fn circle<'a>(&'a self, module: &'a str) -> Option<Vec<&'a str>> {
        self.path(module, module)
    }

    /// The modules on the shortest way of imports, without the last.
    fn path<'a>(&'a self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut ways = std::collections::VecDeque::from([vec![from]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let last = *way.last().expect("a way starts with a module");
            for next in self.imports.get(last).into_iter().flat_map(BTreeMap::keys) {
                if next == to {
                    return Some(way);
                }
                if seen.insert(next) {
                    ways.push_back([&way[..], &[next]].concat());
                }
            }
        }
        None
    }
}
