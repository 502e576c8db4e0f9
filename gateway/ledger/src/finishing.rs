//! Writes endings through a writer, and deals with what the database refuses.

use crate::endings::{Ending, Written};
use crate::error::Error;
use crate::journal;
use crate::slot::Slot;
use crate::writer::Writer;

/// Writes endings, and says what became of each. A record that the database refuses for what it says is set aside, so
/// that it does not keep the answer back; an answer that it refuses is its caller's error.
///
/// # Errors
/// When the database fails: nothing is known of any of them, and they are to be written again.
pub(crate) fn write(
    writer: &mut dyn Writer,
    slot: &Slot,
    endings: &[Ending],
) -> Result<Vec<Result<Written, Error>>, Error> {
    match writer.finish(endings, &slot.owner) {
        Ok(written) => Ok(written.into_iter().map(Ok).collect()),
        Err(Error::Rejected(_)) => endings.iter().map(|ending| write_alone(writer, slot, ending)).collect(),
        Err(error) => Err(error),
    }
}

fn write_alone(writer: &mut dyn Writer, slot: &Slot, ending: &Ending) -> Result<Result<Written, Error>, Error> {
    let mut alone = vec![ending.clone()];
    loop {
        let why = match writer.finish(&alone, &slot.owner) {
            Ok(written) => return Ok(Ok(written.first().copied().unwrap_or(Written::TakenOver))),
            Err(Error::Rejected(why)) => why,
            Err(error) => return Err(error),
        };
        let Some(row) = alone[0].row.take() else {
            return Ok(Err(Error::Rejected(why)));
        };
        let file = journal::keep_aside(&slot.journal, &[row.line()?.as_bytes()], "rejected")?;
        tracing::error!(
            error = why, request_id = %row.request_id, file = %file.display(),
            "a record that the database refuses is set aside"
        );
    }
}
