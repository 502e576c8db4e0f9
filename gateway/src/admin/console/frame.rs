//! What stands around the content of every page: head, navigation, notices; and the page for logging in.

use super::session::Session;
use super::view::{Page, View, ranges};
use maud::{DOCTYPE, Markup, html};

/// The result of an action, shown once.
pub(super) enum Notice {
    Done(String),
    Wrong(String),
    /// A new key, which is shown now and never again.
    Secret(String),
}

/// A piece of a page. One with a name is sent again when it has changed.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) is_live: bool,
    pub(super) html: Markup,
}

impl Part {
    pub(super) fn live(name: &'static str, html: Markup) -> Self {
        Self {
            name,
            is_live: true,
            html,
        }
    }

    pub(super) fn fixed(html: Markup) -> Self {
        Self {
            name: "",
            is_live: false,
            html,
        }
    }
}

fn layout(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/console.svg" type="image/svg+xml";
                link rel="stylesheet" href="/console.css";
            }
            body { (content) }
        }
    }
}

pub(super) fn login(trouble: Option<&str>, has_provider: bool) -> Markup {
    layout(
        "Log in – Sluice",
        &html! {
            main.login {
                h1 { "Sluice" }
                @if let Some(trouble) = trouble { p.notice.wrong role="alert" { (trouble) } }
                @if has_provider {
                    p { a.button #provider href="/login/provider" { "Log in with your organization's account" } }
                }
                p { "Open the link that the gateway printed at startup, or create one with " code { "sluice console" } "." }
                form method="post" action="/login" {
                    label for="token" { "Or the admin token" }
                    input #token type="password" name="token" autocomplete="current-password" required;
                    button type="submit" { "Log in" }
                }
            }
        },
    )
}

/// A whole page.
pub(super) fn page(view: &View, parts: &[Part], session: &Session, notice: Option<&Notice>) -> Markup {
    let (head, parts): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| part.name == HEAD);
    layout(
        &format!("{} – Sluice", view.title()),
        &html! {
            a.skip href="#main" { "Skip to content" }
            header.side { div {
                a.brand href="/" { img src="/console.svg" alt="" width="22" height="22"; "Sluice" }
                nav aria-label="Pages" {
                    @for page in Page::navigation().filter(|page| session.role.has_entry(*page)) {
                        a href=(page.path()) aria-current=[(page == view.page.entry()).then_some("page")] { (page.title()) }
                    }
                }
                form.out method="post" action="/logout" {
                    (csrf(session))
                    @if !session.name.is_empty() { p.who { (session.name) " · " (session.role.word()) } }
                    button.quiet type="submit" { "Log out" }
                }
            } }
            main #main data-view=(view.address) {
                div.top {
                    h1 { (view.title()) }
                    @for part in head { div.about data-part=(part.name) { (part.html) } }
                }
                p #lost.notice.wrong role="alert" hidden { "No connection to the gateway; the data below is outdated. Reconnecting …" }
                @if let Some(notice) = notice { (render_notice(notice)) }
                @for part in parts {
                    @if part.is_live { div.part data-part=(part.name) { (part.html) } } @else { (part.html) }
                }
            }
            script src="/console.js" defer {}
        },
    )
}

/// The part that says which gateway it is, and of when the page is.
pub(super) const HEAD: &str = "head";

/// The field of every form that proves that it is one of this session's pages.
pub(super) fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

/// The choice of a range of time.
pub(super) fn range_picker(view: &View) -> Markup {
    let current = view.range();
    html! {
        nav.ranges aria-label="Time range" {
            @for (range, link) in ranges(view) {
                a href=(link) title=(range.words()) aria-current=[(range == current).then_some("true")] { (range.name()) }
            }
        }
    }
}

/// A section under a heading.
pub(super) fn section(id: &str, title: &str, content: &Markup) -> Markup {
    html! {
        section.card aria-labelledby={"h-" (id)} {
            h2 #{"h-" (id)} { (title) }
            (content)
        }
    }
}

fn render_notice(notice: &Notice) -> Markup {
    match notice {
        Notice::Done(words) => html! { p.notice role="status" { (words) } },
        Notice::Wrong(words) => html! { p.notice.wrong role="alert" { (words) } },
        Notice::Secret(secret) => html! {
            p.notice role="status" { "New key, shown only now; copy it: " code #secret { (secret) } }
        },
    }
}
