//! The graph of crates and modules: it has no cycle, and `docs/architecture-graph.md` shows it as it is.

use crate::graph::{cycle, mermaid};
use crate::modules::{Graph, Modules};
use end_to_end::root;
use std::fmt::Write;
use std::path::PathBuf;

/// Folders of the workspace's crates, from its manifest.
fn members() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let list = manifest
        .split("members = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    let names = list
        .expect("members")
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// A crate's name and the names that its `[dependencies]` and `[build-dependencies]` list.
fn manifest(folder: &str) -> (String, Vec<String>) {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let (mut section, mut name, mut dependencies) = (String::new(), String::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().split('.').next().unwrap_or_default();
            match section.as_str() {
                "package" if key == "name" => value.trim().trim_matches('"').clone_into(&mut name),
                "dependencies" | "build-dependencies" => dependencies.push(key.to_owned()),
                _ => {}
            }
        }
    }
    (name, dependencies)
}

/// Which crates of the workspace depend on which others.
fn crates() -> Graph {
    let manifests: Vec<_> = members().iter().map(|folder| manifest(folder)).collect();
    let is_ours = |name: &String| manifests.iter().any(|(other, _)| other == name);
    let arrows = manifests.iter().map(|(name, dependencies)| {
        let ours = dependencies.iter().filter(|name| is_ours(name)).cloned();
        (name.clone(), ours.collect())
    });
    arrows.collect()
}

/// The modules of the crate in a folder.
fn modules(folder: &str) -> Modules {
    let file = |name: &str| Some(root().join(folder).join("src").join(name)).filter(|path: &PathBuf| path.exists());
    Modules::read(&file("lib.rs").or_else(|| file("main.rs")).expect("a root file"))
}

#[test]
fn no_crate_depends_on_itself_by_way_of_others() {
    let crates = crates();
    assert!(crates["gateway"].contains("policy"), "manifests are read: {crates:?}");
    assert_eq!(cycle(&crates), None);
}

#[test]
fn no_module_depends_on_itself_by_way_of_its_siblings() {
    for folder in members() {
        let modules = modules(&folder);
        let found = modules.paths().find_map(|parent| {
            let parent: Vec<&str> = parent.iter().map(String::as_str).collect();
            cycle(&modules.graph(&parent)).map(|cycle| (parent.join("::"), cycle))
        });
        assert_eq!(found, None, "{folder}");
    }
}

#[test]
fn the_page_with_the_graph_shows_the_sources() {
    let gateway = modules("gateway").graph(&[]);
    assert!(gateway["gate"].contains("clock"), "sources are read: {gateway:?}");
    let mut page = "# Architecture graph\n\n\
        Made from the manifests and the sources by `make architecture`; a test fails when it is stale or has a cycle. \
        An arrow points from what depends to what it depends on; arrows that follow from others are left out.\n"
        .to_owned();
    let _ = write!(page, "\n## Crates\n{}", mermaid(&crates()));
    let _ = write!(page, "\n## Modules of the gateway\n{}", mermaid(&gateway));
    let file = root().join("docs/architecture-graph.md");
    if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        committed, page,
        "docs/architecture-graph.md is stale: run `make architecture`"
    );
}
