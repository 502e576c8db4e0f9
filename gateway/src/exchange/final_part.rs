//! The part of an answer that goes out last, once the ledger has the record.

use bytes::Bytes;
use protocol::error::RequestError;

/// The end of a successful answer.
pub(super) enum FinalPart {
    /// A whole answer.
    Body {
        status: u16,
        content_type: Bytes,
        body: Bytes,
    },
    /// The refusal of a server that speaks the client's protocol, passed on as it is.
    Refused {
        status: u16,
        content_type: Bytes,
        body: Bytes,
        /// The same for the ledger.
        error: RequestError,
    },
    /// What is left of a stream whose beginning has been sent.
    StreamEnd(Option<Bytes>),
}

impl FinalPart {
    pub(super) fn status(&self) -> u16 {
        match self {
            FinalPart::Body { status, .. } | FinalPart::Refused { status, .. } => *status,
            FinalPart::StreamEnd(_) => 200,
        }
    }
}
