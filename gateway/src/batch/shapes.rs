//! Files and batches as OpenAI's clients see them.

use ledger::BatchStatus;
use ledger::batches::Batch;
use ledger::files::File;
use serde_json::{Value, json};

pub(crate) fn file(file: &File) -> Value {
    let mut shape = json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose.name(),
        "status": "processed",
    });
    // OpenAI leaves it out where there is none.
    if let Some(expires_at) = file.expires_at {
        shape["expires_at"] = expires_at.into();
    }
    shape
}

pub(crate) fn batch(batch: &Batch) -> Value {
    let parsed = |text: &Option<String>| text.as_ref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut shape = json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": parsed(&batch.problems),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.name(),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.created_at,
        "expires_at": batch.expires_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": parsed(&batch.metadata),
    });
    for status in BatchStatus::ALL.iter().filter(|status| status.is_final()) {
        let at = batch.finished_at.filter(|_| batch.status == *status);
        shape[format!("{status}_at")] = at.into();
    }
    shape
}
