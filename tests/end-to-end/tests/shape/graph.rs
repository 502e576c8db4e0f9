//! A cycle in a graph, and the graph's picture.

use crate::modules::Graph;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A cycle, as the names on the way and the first again.
pub(crate) fn cycle(graph: &Graph) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|start| visit(graph, start, &mut Vec::new(), &mut done))
}

/// Walks on from a node, depth first; `done` are nodes from which no cycle can be reached.
fn visit(graph: &Graph, node: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(at) = way.iter().position(|one| one == node) {
        return Some([&way[at..], &[node.to_owned()]].concat());
    }
    if done.contains(node) {
        return None;
    }
    way.push(node.to_owned());
    let found = graph
        .get(node)
        .into_iter()
        .flatten()
        .find_map(|next| visit(graph, next, way, done));
    way.pop();
    done.insert(node.to_owned());
    found
}

/// The graph as a Mermaid flowchart. Arrows that follow from others are left out.
pub(crate) fn mermaid(graph: &Graph) -> String {
    let mut text = "```mermaid\nflowchart TD\n".to_owned();
    for (from, targets) in graph {
        // `end` is a word of Mermaid's own, also before a hyphen.
        let _ = if from.contains('-') {
            writeln!(text, "    {}[\"{from}\"]", node(from))
        } else {
            writeln!(text, "    {from}")
        };
        for to in targets {
            let is_implied = targets.iter().any(|other| other != to && reaches(graph, other, to));
            if !is_implied {
                let _ = writeln!(text, "    {} --> {}", node(from), node(to));
            }
        }
    }
    text + "```\n"
}

fn node(name: &str) -> String {
    name.replace('-', "_")
}

/// Returns whether arrows lead from one node of an acyclic graph to another.
fn reaches(graph: &Graph, from: &str, to: &str) -> bool {
    let mut targets = graph.get(from).into_iter().flatten();
    targets.any(|next| next == to || reaches(graph, next, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(arrows: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in arrows {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        graph
    }

    #[test]
    fn a_cycle_is_found_and_named() {
        assert_eq!(cycle(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
        let found = cycle(&graph(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).expect("a cycle");
        assert_eq!(found, ["b", "c", "d", "b"]);
    }

    #[test]
    fn a_picture_has_no_arrow_that_follows_from_others() {
        let text = mermaid(&graph(&[("a", "b"), ("b", "c"), ("a", "c")]));
        assert!(text.contains("a --> b\n") && text.contains("b --> c\n"));
        assert!(!text.contains("a --> c"));
    }
}
