//! Pages of a project's list, which is ordered by the time of creation and then by id.

use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

/// The part of a list that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<'a> {
    /// Creation time and id of the item that it follows; `None`: it is the first page.
    pub after: Option<(i64, &'a str)>,
    /// Items, at most.
    pub limit: i64,
    /// True: oldest first.
    pub is_ascending: bool,
}

impl Page<'_> {
    /// The condition, the order and the limit, with three parameters from number `first` on.
    pub(crate) fn clause(&self, first: usize) -> String {
        let (is_after, order) = if self.is_ascending { (">", "ASC") } else { ("<", "DESC") };
        format!(
            "(created_at, id) {is_after} (${}, ${}) ORDER BY created_at {order}, id {order} LIMIT ${}",
            first,
            first + 1,
            first + 2
        )
    }

    /// Binds the parameters of [`Self::clause`].
    pub(crate) fn bind<'q>(&self, query: Query<'q, Any, AnyArguments<'q>>) -> Query<'q, Any, AnyArguments<'q>> {
        let beyond_all = if self.is_ascending { i64::MIN } else { i64::MAX };
        let (time, id) = self.after.unwrap_or((beyond_all, ""));
        query.bind(time).bind(id.to_owned()).bind(self.limit)
    }
}
