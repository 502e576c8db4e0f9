//! Tables that become lists of labelled values on a narrow page, so that nothing is cut.

use maud::{Markup, html};

/// A column: its name, and whether it has numbers, which stand at the right.
#[derive(Clone, Copy)]
pub(super) struct Column(&'static str, bool);

pub(super) const fn text(name: &'static str) -> Column {
    Column(name, false)
}

pub(super) const fn numbers(name: &'static str) -> Column {
    Column(name, true)
}

/// A table with a caption for those who do not see it, and a row for each list of cells.
pub(super) fn table(caption: &str, columns: &[Column], rows: &[Vec<Markup>]) -> Markup {
    let id = format!("table-{}", caption.to_lowercase().replace(' ', "-"));
    html! {
        div.scroll id=(id) tabindex="0" role="group" aria-label=(caption) {
            table {
                caption.unseen { (caption) }
                thead { tr { @for Column(name, is_number) in columns { th.n[*is_number] scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (Column(name, is_number), cell) in columns.iter().zip(row) {
                                td.n[*is_number] data-label=(name) { span.cell { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
