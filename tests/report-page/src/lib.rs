//! A report as one page with everything in it, in the console's design, without a script or anything from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// A page of a program with a title; `parts` are in its main column.
pub fn document(title: &str, program: &str, parts: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) " · " (program) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body { main { (parts) } }
        }
    };
    page.into_string()
}

/// A part of a page.
pub fn card(title: &str, about: &str, content: &Markup) -> Markup {
    html! {
        section.card {
            h2 { (title) }
            @if !about.is_empty() { p.soft { (about) } }
            (content)
        }
    }
}
