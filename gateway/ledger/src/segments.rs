//! Moves what lies in a journal into the database. A line that cannot be read, and a record that the database refuses for
//! what it says, are set aside in a file beside the journal, so that neither keeps back what follows it.

use crate::error::Error;
use crate::id::GatewayId;
use crate::journal::{self, Lines};
use crate::row::Row;
use crate::slot::Slot;
use crate::writer::Writer;
use std::collections::HashSet;
use std::ops::AddAssign;

/// The number of lines and records that were set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SetAside {
    /// Lines that cannot be read.
    pub(crate) damaged_lines: u64,
    /// Records that the database refuses.
    pub(crate) rejected_records: u64,
}

impl AddAssign for SetAside {
    fn add_assign(&mut self, other: Self) {
        self.damaged_lines += other.damaged_lines;
        self.rejected_records += other.rejected_records;
    }
}

/// Moves what a gateway that was killed has left: segments, and intents of requests that ran.
pub(crate) fn recover(writer: &mut dyn Writer, slot: &Slot) -> Result<SetAside, Error> {
    let mut aside = move_before(writer, slot, u64::MAX)?;
    let rows = writer.intents(&slot.owner)?;
    if !rows.is_empty() {
        tracing::warn!(
            requests = rows.len(),
            "requests were running when the gateway was killed"
        );
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let lines = Lines {
            rows,
            ..Lines::default()
        };
        aside.rejected_records += write(writer, slot, lines)?;
        // Records whose row was written have no intent any more; this is for those that were set aside.
        writer.delete_intents(&ids)?;
    }
    Ok(aside)
}

/// Moves the segments before number `until`, in their order.
pub(crate) fn move_before(writer: &mut dyn Writer, slot: &Slot, until: u64) -> Result<SetAside, Error> {
    let mut aside = SetAside::default();
    let base = &slot.journal;
    let segments = journal::segments(base)?;
    for (_, segment) in segments.into_iter().take_while(|(number, _)| *number < until) {
        let text = std::fs::read(&segment)?;
        let mut lines = journal::read(&text);
        let damaged = std::mem::take(&mut lines.damaged);
        aside.rejected_records += write(writer, slot, lines)?;
        if !damaged.is_empty() {
            let file = journal::keep_aside(base, &damaged, "damaged")?;
            let count = damaged.len();
            tracing::error!(lines = count, file = %file.display(), "torn or damaged lines of the journal are set aside");
            aside.damaged_lines += count as u64;
        }
        std::fs::remove_file(&segment)?;
    }
    Ok(aside)
}

/// Writes lines into the database and sets aside what it refuses; the number of records set aside.
fn write(writer: &mut dyn Writer, slot: &Slot, mut lines: Lines<'_>) -> Result<u64, Error> {
    // A part must not keep the intent of a request whose record is in another part.
    let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
    lines.intents.retain(|intent| !finished.contains(&intent.id));
    let mut rejected = Vec::new();
    write_or_reject(writer, lines, &slot.owner, &mut rejected)?;
    if rejected.is_empty() {
        return Ok(0);
    }
    let mut texts = Vec::with_capacity(rejected.len());
    for row in &rejected {
        texts.push(row.line()?);
    }
    let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    let file = journal::keep_aside(&slot.journal, &texts, "rejected")?;
    tracing::error!(records = rejected.len(), file = %file.display(), "records that the database refuses are set aside");
    let ids: Vec<i64> = rejected.iter().map(|row| row.id).collect();
    writer.delete_intents(&ids)?;
    Ok(rejected.len() as u64)
}

/// Writes lines in one transaction. If the database refuses one of them for what it says, halves are tried, down to the
/// record that is at fault: of n records with one such, about 2 log₂ n transactions.
fn write_or_reject<'a>(
    writer: &mut dyn Writer,
    lines: Lines<'a>,
    owner: &GatewayId,
    rejected: &mut Vec<Row<'a>>,
) -> Result<(), Error> {
    let error = match writer.write(&lines, owner) {
        Err(Error::Rejected(why)) => why,
        result => return result,
    };
    let Lines {
        mut rows, mut intents, ..
    } = lines;
    if rows.len() + intents.len() <= 1 {
        // An intent says nothing that its request's record will not say.
        for row in &rows {
            tracing::error!(error, request_id = %row.request_id, "the database refuses a record");
        }
        rejected.append(&mut rows);
        return Ok(());
    }
    let more_rows = rows.split_off(rows.len() / 2);
    let more_intents = intents.split_off(intents.len().div_ceil(2));
    for (rows, intents) in [(rows, intents), (more_rows, more_intents)] {
        let half = Lines {
            rows,
            intents,
            ..Lines::default()
        };
        write_or_reject(writer, half, owner, rejected)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
