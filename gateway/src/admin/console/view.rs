//! Which page of the console is shown, and what of it: read from a path and its query, and written as a link.

use super::range::Range;
use crate::percent::push_encoded;
use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;

/// The console's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Overview,
    Queue,
    Projects,
    Project,
    Models,
    Requests,
    Request,
    Keys,
    Batches,
    Configuration,
}

impl Page {
    /// All of them.
    const ALL: [Page; 10] = [
        Self::Overview,
        Self::Queue,
        Self::Projects,
        Self::Project,
        Self::Models,
        Self::Requests,
        Self::Request,
        Self::Keys,
        Self::Batches,
        Self::Configuration,
    ];

    /// Those in the navigation, in its order.
    pub(super) fn navigation() -> impl Iterator<Item = Page> {
        Self::ALL.into_iter().filter(|page| page.entry() == *page)
    }

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Queue => "/console/queue",
            Self::Projects => "/console/projects",
            Self::Project => "/console/project",
            Self::Models => "/console/models",
            Self::Requests => "/console/requests",
            Self::Request => "/console/request",
            Self::Keys => "/console/keys",
            Self::Batches => "/console/batches",
            Self::Configuration => "/console/configuration",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Queue => "Queue",
            Self::Projects => "Projects",
            Self::Project => "Project",
            Self::Models => "Models and upstreams",
            Self::Requests => "Requests",
            Self::Request => "Request",
            Self::Keys => "Keys",
            Self::Batches => "Batches",
            Self::Configuration => "Configuration",
        }
    }

    /// The entry of the navigation that the page belongs to.
    pub(super) const fn entry(self) -> Self {
        match self {
            Self::Project => Self::Projects,
            Self::Request => Self::Requests,
            page => page,
        }
    }
}

/// A page and what is asked of it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) page: Page,
    pub(super) asked: Asked,
    /// Its path and query.
    pub(super) address: String,
}

/// The query of a page. Forms send empty fields too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The name of a range of time.
    pub(super) range: String,
    /// The id of a project or a request.
    pub(super) id: String,
    pub(super) project: String,
    /// Of a search, or of a key that is to be made.
    pub(super) user: String,
    pub(super) key: String,
    pub(super) model: String,
    pub(super) upstream: String,
    pub(super) status: String,
    pub(super) reason: String,
    /// The number that the next records of a search come before.
    pub(super) before: String,
}

impl View {
    /// The view at a path; `None` where there is no page.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let page = Page::ALL.into_iter().find(|page| page.path() == uri.path())?;
        let asked = Query::try_from_uri(uri).map_or_else(|_| Asked::default(), |Query(asked)| asked);
        let address = uri
            .path_and_query()
            .map_or_else(|| page.path().to_owned(), ToString::to_string);
        Some(Self { page, asked, address })
    }

    /// The range that is asked for, or the page's own.
    pub(super) fn range(&self) -> Range {
        let own = match self.page {
            Page::Requests => Range::Day,
            Page::Projects | Page::Project => Range::Month,
            _ => Range::Hour,
        };
        Range::of(&self.asked.range).unwrap_or(own)
    }

    /// The title of the page, with the id of what it is about.
    pub(super) fn title(&self) -> String {
        match self.asked.id.as_str() {
            id if !id.is_empty() && self.page.entry() != self.page => format!("{} {id}", self.page.title()),
            _ => self.page.title().to_owned(),
        }
    }

    /// A page, with nothing asked of it.
    pub(super) fn plain(page: Page) -> Self {
        Self {
            page,
            asked: Asked::default(),
            address: page.path().to_owned(),
        }
    }
}

/// The links to a page with each range of time.
pub(super) fn ranges(view: &View) -> impl Iterator<Item = (Range, String)> {
    Range::ALL.into_iter().map(|range| {
        (
            range,
            link(view.page, &[("id", &view.asked.id), ("range", range.name())]),
        )
    })
}

/// A path with a query of these names and values; empty values are left out.
pub(super) fn link(page: Page, query: &[(&str, &str)]) -> String {
    let mut link = page.path().to_owned();
    let mut mark = '?';
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        link.push(mark);
        mark = '&';
        link.push_str(name);
        link.push('=');
        push_encoded(&mut link, value);
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_back_as_the_view_that_it_was_made_of() {
        let made = link(Page::Keys, &[("user", "ümlaut & 50 % = a/b"), ("range", "")]);
        assert_eq!(made, "/console/keys?user=%C3%BCmlaut%20%26%2050%20%25%20%3D%20a%2Fb");
        let view = View::of(&made.parse().expect("a URI")).expect("a page");
        assert_eq!(view.page, Page::Keys);
        assert_eq!(view.asked.user, "ümlaut & 50 % = a/b");
        let project = View::of(&"/console/project?id=a".parse().expect("a URI")).expect("a page");
        assert_eq!(
            (project.title().as_str(), project.page.entry()),
            ("Project a", Page::Projects)
        );
        assert!(View::of(&"/console/unknown".parse().expect("a URI")).is_none());
    }
}
