//! Addresses of listeners as people write them.

use std::net::{Ipv4Addr, SocketAddr};

/// `127.0.0.1:8000`, `[::1]:8000` or `localhost:8000`.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let hint = match text.trim_start_matches(':').parse::<u16>() {
        Ok(port) => format!("write 127.0.0.1:{port} for this machine alone, or 0.0.0.0:{port} for the network"),
        Err(_) if text.contains("://") => "write host and port without a scheme, such as 127.0.0.1:8000".to_owned(),
        Err(_) => "write an IP address or localhost, and a port, such as 127.0.0.1:8000".to_owned(),
    };
    Err(format!("`{text}` is not a listen address; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_loopback_and_other_words_are_explained() {
        assert_eq!(listen_address("localhost:8000"), Ok(([127, 0, 0, 1], 8000).into()));
        assert_eq!(listen_address("[::1]:1").map(|address| address.is_ipv6()), Ok(true));
        for (wrong, hint) in [
            ("8000", "0.0.0.0:8000 for the network"),
            (":8000", "127.0.0.1:8000 for this machine"),
            ("http://127.0.0.1:8000", "without a scheme"),
            ("0.0.0.0", "and a port"),
            ("localhost:99999", "and a port"),
        ] {
            let message = listen_address(wrong).expect_err(wrong);
            assert!(message.contains(hint), "{message}");
        }
    }
}
