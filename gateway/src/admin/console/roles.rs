//! What a role sees and does.

use super::view::{Asked, Page, View};
use crate::config::{Config, Role};
use policy::ProjectId;

impl Role {
    /// The word for it.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::ProjectOwner(_) => "project owner",
        }
    }

    /// The project that it is bound to.
    pub(super) fn project(&self) -> Option<&str> {
        match self {
            Self::ProjectOwner(project) => Some(project),
            Self::Viewer | Self::Operator => None,
        }
    }

    /// True if it may see things of a project.
    pub(super) fn sees(&self, project: &str) -> bool {
        self.project().is_none_or(|own| own == project)
    }

    /// True if it may change things of a project.
    pub(super) fn may_change(&self, project: &str) -> bool {
        *self != Self::Viewer && self.sees(project)
    }

    /// True if it may change what is of all projects.
    pub(super) fn may_change_all(&self) -> bool {
        *self == Self::Operator
    }

    /// True if the navigation leads to a page.
    pub(super) fn has_entry(&self, page: Page) -> bool {
        self.project().is_none() || matches!(page, Page::Projects | Page::Requests | Page::Keys)
    }

    /// A page as the role sees it; `None` if it does not.
    pub(super) fn scoped(&self, view: View) -> Option<View> {
        let Some(project) = self.project() else {
            return Some(view);
        };
        let project = project.to_owned();
        match view.page {
            Page::Overview | Page::Projects | Page::Project => Some(View {
                page: Page::Project,
                asked: Asked {
                    id: project,
                    range: view.asked.range,
                    ..Asked::default()
                },
                address: view.address,
            }),
            Page::Requests | Page::Request | Page::Keys => Some(View {
                asked: Asked { project, ..view.asked },
                ..view
            }),
            Page::Queue | Page::Models | Page::Batches | Page::Configuration => None,
        }
    }

    /// The number of the project that it is bound to, for a lookup of what is live.
    ///
    /// # Errors
    /// The project is not configured any more, so there is nothing of it.
    pub(super) fn scope(&self, config: &Config) -> Result<Option<ProjectId>, ()> {
        let Some(project) = self.project() else {
            return Ok(None);
        };
        let known = config.projects.iter().zip(0..).find(|(known, _)| known.id == project);
        known.map(|(_, number)| Some(ProjectId(number))).ok_or(())
    }
}
