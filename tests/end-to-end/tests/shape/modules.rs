//! The modules of a crate and which of them refers to which, from the tokens of its sources.
//!
//! Followed are `mod` declarations from the crate's root file on; items under `#[cfg(test)]` are left out. A reference
//! is a path that begins with `crate`, `self` or `super`, in a `use` or anywhere else, macros included. A path to an
//! item that a module re-exports counts for the module that the item comes from.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names from the crate's root down.
type ModulePath = Vec<String>;

/// Arrows from a module to the modules that it refers to.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The sources of one crate.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The paths that each module refers to, absolute but for re-exports.
    references: BTreeMap<ModulePath, Vec<ModulePath>>,
    /// Names that `use` declarations bring into a module, with the paths that they stand for.
    imports: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

impl Modules {
    /// Reads the crate whose root is this file.
    pub(crate) fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        let folder = root.parent().expect("a folder");
        modules.read_file(root, folder, &Vec::new());
        modules
    }

    fn read_file(&mut self, file: &Path, folder: &Path, module: &ModulePath) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read_items(tokens, folder, module);
    }

    fn read_items(&mut self, tokens: TokenStream, folder: &Path, module: &ModulePath) {
        self.references.entry(module.clone()).or_default();
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if is_test_attribute(&tokens[at..]) {
                at = end_of_item(&tokens, at + 2);
            } else if is(&tokens[at], "mod") && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_))) {
                self.read_module(&tokens[at + 1..], folder, module);
                at += 3;
            } else if is(&tokens[at], "use") {
                let end = end_of_item(&tokens, at);
                self.read_use(&tokens[at + 1..end], module);
                at = end;
            } else if is_path_start(&tokens[at]) {
                let mut found = Vec::new();
                at += paths(&tokens[at..], &Vec::new(), &mut found);
                let found = found.into_iter().map(|(path, _)| absolute(module, &path));
                self.references.entry(module.clone()).or_default().extend(found);
            } else {
                if let TokenTree::Group(group) = &tokens[at] {
                    self.read_items(group.stream(), folder, module);
                }
                at += 1;
            }
        }
    }

    /// Reads a module from its name on: the block that follows, or its file.
    fn read_module(&mut self, tokens: &[TokenTree], folder: &Path, parent: &ModulePath) {
        let name = tokens[0].to_string();
        let mut module = parent.clone();
        module.push(name.clone());
        let folder = folder.join(&name);
        match tokens.get(1) {
            Some(TokenTree::Group(block)) => self.read_items(block.stream(), &folder, &module),
            _ => {
                let file = folder.with_extension("rs");
                let file = if file.exists() { file } else { folder.join("mod.rs") };
                self.read_file(&file, &folder, &module);
            }
        }
    }

    /// Reads what a `use` brings into a module. A path without `crate`, `self` or `super` is of a child module, or of
    /// another crate.
    fn read_use(&mut self, tokens: &[TokenTree], module: &ModulePath) {
        let mut found = Vec::new();
        paths(tokens, &Vec::new(), &mut found);
        for (path, name) in found {
            let is_absolute = path.first().is_some_and(|first| PATH_STARTS.contains(&first.as_str()));
            let path = absolute(module, &path);
            if is_absolute {
                self.references.entry(module.clone()).or_default().push(path.clone());
            }
            self.imports.entry(module.clone()).or_default().insert(name, path);
        }
    }

    /// The path of every module.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &ModulePath> {
        self.references.keys()
    }

    /// Which children of a module refer to which others, and not to themselves.
    pub(crate) fn graph(&self, parent: &[&str]) -> Graph {
        let depth = parent.len();
        let child = |path: &ModulePath| {
            let is_below = path.len() > depth && path.iter().zip(parent).all(|(one, other)| one == other);
            is_below.then(|| path[..=depth].to_vec())
        };
        let mut graph = Graph::new();
        for (module, references) in &self.references {
            let Some(from) = child(module) else { continue };
            let arrows = graph.entry(from[depth].clone()).or_default();
            let targets = references.iter().filter_map(|path| child(&self.origin(path)));
            let targets = targets.filter(|to| *to != from && self.references.contains_key(to));
            arrows.extend(targets.map(|to| to[depth].clone()));
        }
        graph
    }

    /// The path of an item where it is declared.
    fn origin(&self, path: &ModulePath) -> ModulePath {
        let mut path = path.clone();
        // Each turn replaces one re-export; more than a few would be a circle of them.
        for _ in 0..8 {
            let imported = (0..path.len()).find_map(|at| {
                let module = path[..at].to_vec();
                let names = self.imports.get(&module)?;
                let is_module = self.references.contains_key(&path[..=at]);
                let target = names.get(&path[at]).filter(|_| !is_module)?;
                Some([target.as_slice(), &path[at + 1..]].concat())
            });
            match imported {
                Some(next) if next != path => path = next,
                _ => break,
            }
        }
        path
    }
}

/// The first words of a path inside the same crate.
const PATH_STARTS: [&str; 3] = ["crate", "self", "super"];

fn is(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_path_start(token: &TokenTree) -> bool {
    PATH_STARTS.iter().any(|start| is(token, start))
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Returns whether `#[cfg(test)]`, or a `cfg` of several conditions with `test` among them, stands here.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let [hash, TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    let text = attribute.stream().to_string();
    let words: Vec<&str> = text
        .split(|sign: char| !sign.is_alphanumeric() && sign != '_')
        .collect();
    is_punct(Some(hash), '#') && words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not")
}

/// The place after the item that begins here: its `;`, or its block.
fn end_of_item(tokens: &[TokenTree], start: usize) -> usize {
    let is_use = tokens.get(start).is_some_and(|token| is(token, "use"));
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        token => is_punct(Some(token), ';'),
    };
    let length = tokens[start..].iter().position(is_end);
    length.map_or(tokens.len(), |length| start + length + 1)
}

/// The paths of a path or a `use` tree, each with the name that it is known by; the number of tokens read.
fn paths(tokens: &[TokenTree], before: &ModulePath, found: &mut Vec<(ModulePath, String)>) -> usize {
    let mut path = before.clone();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && at > 0 => {
                let elements: Vec<TokenTree> = group.stream().into_iter().collect();
                for element in elements.split(|token| is_punct(Some(token), ',')) {
                    if !element.is_empty() {
                        paths(element, &path, found);
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
            break;
        }
        at += 2;
    }
    if path.len() > before.len() {
        // `{self, …}` names the module itself.
        if !before.is_empty() && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let alias = tokens.get(at).filter(|token| is(token, "as"));
        let alias = alias.and_then(|_| tokens.get(at + 1)).map(ToString::to_string);
        let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
        found.push((path, name));
    }
    at.max(1)
}

/// The path from the crate's root that a path in this module stands for.
fn absolute(module: &ModulePath, path: &[String]) -> ModulePath {
    let mut base = module.clone();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        rest = after;
    }
    [base.as_slice(), rest].concat()
}
