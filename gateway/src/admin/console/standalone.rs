//! The console's design for a page in one file, which no server serves: style and pictures are in it.

pub(crate) use super::plot::{Axis, Color, Series, lines_over};

use super::STYLE;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A page without navigation.
const ALONE: &str = "body { display: block; } main { margin: 0 auto; }";

/// A page of this title and content.
pub(crate) fn document(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(ALONE)) }
            }
            body { (content) }
        }
    }
}
