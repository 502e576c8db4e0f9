//! Tiles: one figure each, with what belongs to it.

use maud::{Markup, html};

/// A tile; the class is `good`, `warn`, or empty.
pub(super) fn tile(name: &str, value: &str, more: &str, class: &str) -> Markup {
    html! {
        div class={"tile " (class)} {
            div.name { (name) }
            div.value { (value) }
            div.more { (more) }
        }
    }
}
