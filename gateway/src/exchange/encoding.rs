//! Content codings (RFC 9110, section 8.4): gzip, deflate, brotli and zstd bodies are decoded, bounded in size.

use bytes::Bytes;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use protocol::error::{ErrorCode, RequestError};
use std::io::{self, Read, Write};

/// Members of gzip and frames of zstd that a body may be made of: each costs time, however short it is.
const MOST_PARTS: usize = 1_000;

/// A content coding that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The coding of a body by its headers.
///
/// # Errors
/// `unsupported_media_type` for a coding that is not understood, or several on top of one another.
pub(super) fn of(headers: &HeaderMap) -> Result<Coding, RequestError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(Coding::Identity);
    };
    let name = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(match name.as_str() {
        "" | "identity" => Coding::Identity,
        "gzip" | "x-gzip" => Coding::Gzip,
        "deflate" => Coding::Deflate,
        "br" => Coding::Brotli,
        "zstd" => Coding::Zstd,
        _ => {
            let message = format!("unsupported content-encoding `{name}`: send gzip, deflate, br, zstd or none");
            return Err(RequestError::new(ErrorCode::UnsupportedMediaType, message));
        }
    })
}

/// Decodes a whole body; the result may have `limit` bytes at most.
pub(super) fn decode(coding: Coding, body: Bytes, limit: usize) -> Result<Bytes, RequestError> {
    if coding == Coding::Identity || body.is_empty() {
        return Ok(body);
    }
    let mut decoder = Decoder::new(coding, limit);
    let decoded = decoder.push(&body).and_then(|()| decoder.finish());
    match decoded {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) if decoder.is_over_limit() => Err(too_large(limit)),
        Err(error) => {
            let message = format!("invalid request body: its {coding:?} content-encoding cannot be decoded: {error}");
            Err(RequestError::new(ErrorCode::BadRequest, message))
        }
    }
}

/// Decodes a body that arrives in pieces.
pub(super) struct Decoder {
    inner: Inner,
}

enum Inner {
    /// With the number of members that have ended.
    Gzip(GzDecoder<Bounded>, usize),
    Deflate(ZlibDecoder<Bounded>),
    /// `deflate` as some clients understand it: without the header of zlib.
    RawDeflate(DeflateDecoder<Bounded>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Bounded>>),
    /// Gathered and decoded at the end: servers do not stream zstd unasked.
    Zstd(Vec<u8>, Bounded),
}

/// A sink that refuses to grow beyond a limit.
#[derive(Debug, Default)]
struct Bounded {
    bytes: Vec<u8>,
    total: usize,
    limit: usize,
    is_over: bool,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total += bytes.len();
        if self.total > self.limit {
            self.is_over = true;
            return Err(io::Error::other("larger than the limit once decoded"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// A decoder whose whole output may have `limit` bytes.
    pub(super) fn new(coding: Coding, limit: usize) -> Self {
        let sink = Bounded::new(limit);
        let inner = match coding {
            Coding::Deflate => Inner::Deflate(ZlibDecoder::new(sink)),
            Coding::Brotli => Inner::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(sink, 4096))),
            Coding::Zstd => Inner::Zstd(Vec::new(), sink),
            Coding::Gzip | Coding::Identity => Inner::Gzip(GzDecoder::new(sink), 0),
        };
        Self { inner }
    }

    /// Takes the next piece of encoded bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Inner::Deflate(decoder) = &self.inner
            && decoder.total_in() == 0
            && bytes.first().is_some_and(|first| !begins_zlib(*first))
        {
            let sink = Bounded::new(decoder.get_ref().limit);
            self.inner = Inner::RawDeflate(DeflateDecoder::new(sink));
        }
        match &mut self.inner {
            Inner::Gzip(decoder, ended) => gunzip(decoder, ended, bytes),
            Inner::Deflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Inner::RawDeflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Inner::Brotli(decoder) => decoder.write_all(bytes),
            Inner::Zstd(encoded, sink) => {
                if encoded.len() + bytes.len() > sink.limit {
                    sink.is_over = true;
                    return Err(io::Error::other("larger than the limit"));
                }
                encoded.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Takes the bytes that were decoded since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match &mut self.inner {
            Inner::Gzip(decoder, _) => decoder.get_mut().take(),
            Inner::Deflate(decoder) => decoder.get_mut().take(),
            Inner::RawDeflate(decoder) => decoder.get_mut().take(),
            Inner::Brotli(decoder) => decoder.get_mut().take(),
            Inner::Zstd(_, sink) => sink.take(),
        }
    }

    /// Ends the body and returns what is left of it.
    pub(super) fn finish(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.inner {
            Inner::Gzip(decoder, _) => decoder.try_finish()?,
            Inner::Deflate(decoder) => decoder.try_finish()?,
            Inner::RawDeflate(decoder) => decoder.try_finish()?,
            Inner::Brotli(decoder) => decoder.close()?,
            Inner::Zstd(encoded, sink) => {
                let (mut rest, mut frames) = (&encoded[..], 0);
                while !rest.is_empty() {
                    frames = next_part(frames)?;
                    let frame = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(io::Error::other)?;
                    // One byte more than allowed shows that there is more.
                    io::copy(&mut frame.take(sink.limit as u64 + 1), sink)?;
                }
            }
        }
        Ok(self.take())
    }

    fn is_over_limit(&self) -> bool {
        match &self.inner {
            Inner::Gzip(decoder, _) => decoder.get_ref().is_over,
            Inner::Deflate(decoder) => decoder.get_ref().is_over,
            Inner::RawDeflate(decoder) => decoder.get_ref().is_over,
            Inner::Brotli(decoder) => decoder.get_ref().is_over,
            Inner::Zstd(_, sink) => sink.is_over,
        }
    }
}

/// Decodes more of a body of gzip; a decoder takes nothing more once its member has ended.
fn gunzip(decoder: &mut GzDecoder<Bounded>, ended: &mut usize, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = decoder.write(rest)?;
        rest = &rest[taken..];
        if taken == 0 {
            *ended = next_part(*ended)?;
            let member = std::mem::replace(decoder, GzDecoder::new(Bounded::default()));
            *decoder = GzDecoder::new(member.finish()?);
        }
    }
    decoder.flush()
}

/// Counts a part more.
fn next_part(parts: usize) -> io::Result<usize> {
    if parts == MOST_PARTS {
        return Err(io::Error::other(format!("it has more than {MOST_PARTS} parts")));
    }
    Ok(parts + 1)
}

/// Returns whether the data of zlib may begin with a byte: its low half is the method, of which there is one (RFC 1950).
/// No block of deflate alone begins so.
fn begins_zlib(first: u8) -> bool {
    first & 0x0f == 8
}

/// The error of a body that is larger than the limit, as sent or decoded.
pub(super) fn too_large(limit: usize) -> RequestError {
    RequestError::new(
        ErrorCode::BodyTooLarge,
        format!("request body larger than {limit} bytes (bounds.max_body_bytes)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    /// RFC 1952, section 2.2: a file is a series of members. RFC 9110, section 8.4.1.2: some send deflate without zlib.
    /// The frames of zstd stand one after the other (RFC 8878, section 3.1).
    #[test]
    fn every_form_of_a_coding_is_decoded_and_bounded() {
        let text = b"hello ".repeat(100);
        let (one, other) = text.split_at(250);
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&text).expect("memory");
        let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        for (coding, body) in [
            (Coding::Gzip, [gzip(one), gzip(other)].concat()),
            (Coding::Deflate, raw.finish().expect("memory")),
            (Coding::Zstd, [zstd(one), zstd(other)].concat()),
        ] {
            let whole = decode(coding, body.clone().into(), 600).expect("decoded");
            assert_eq!(*whole, text, "{coding:?}");
            let mut decoder = Decoder::new(coding, 600);
            let mut pieces = Vec::new();
            for byte in &body {
                decoder.push(&[*byte]).expect("a byte");
                pieces.extend(decoder.take());
            }
            pieces.extend(decoder.finish().expect("the end"));
            assert_eq!(pieces, text, "{coding:?}, byte by byte");
            let error = decode(coding, body.clone().into(), 599).expect_err("too large");
            assert_eq!(error.code, ErrorCode::BodyTooLarge, "{coding:?}");
            decode(coding, body[..body.len() - 9].to_vec().into(), 600).expect_err("cut");
        }
    }

    /// A member of 20 bytes or a frame of 9 decodes to nothing, and makes a new decoder.
    #[test]
    fn a_body_of_very_many_empty_parts_is_refused() {
        let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        for (coding, part) in [(Coding::Gzip, gzip(b"")), (Coding::Zstd, zstd(b""))] {
            assert!(decode(coding, part.repeat(1_000).into(), 1 << 20).is_ok(), "{coding:?}");
            let error = decode(coding, part.repeat(1_002).into(), 1 << 20).expect_err("refused");
            assert!(error.message.contains("more than 1000 parts"), "{}", error.message);
        }
    }
}
