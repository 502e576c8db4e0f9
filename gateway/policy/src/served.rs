//! The counters of served work, by which bands, projects, users and sessions are ordered.

/// Work that a band, a project, a user or a session has been served.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served(pub(crate) u64);

impl Served {
    /// Raises the counter where waiting begins, so that the time before gives no credit.
    pub(crate) fn lift(&mut self, to: u64) {
        self.0 = self.0.max(to);
    }

    pub(crate) fn charge(&mut self, work: u64) {
        self.0 = self.0.saturating_add(work);
    }

    /// Replaces what was charged by the actual.
    pub(crate) fn correct(&mut self, charged: u64, actual: u64) {
        self.0 = self.0.saturating_sub(charged).saturating_add(actual);
    }
}
