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
    /// The rest of a stream whose beginning has been sent.
    StreamEnd(Option<Bytes>),
    /// The rest of an answer that is passed on unread, whose head has been sent.
    Relayed {
        status: u16,
        rest: Option<Bytes>,
        /// A server's refusal, for the ledger.
        error: Option<RequestError>,
    },
}

impl FinalPart {
    pub(super) fn status(&self) -> u16 {
        match self {
            FinalPart::Body { status, .. } | FinalPart::Refused { status, .. } | FinalPart::Relayed { status, .. } => {
                *status
            }
            FinalPart::StreamEnd(_) => 200,
        }
    }

    /// The refusal of a server whose own words the client gets.
    pub(super) fn refusal(&self) -> Option<&RequestError> {
        match self {
            FinalPart::Refused { error, .. } => Some(error),
            FinalPart::Relayed { error, .. } => error.as_ref(),
            FinalPart::Body { .. } | FinalPart::StreamEnd(_) => None,
        }
    }
}
