//! Output on the terminal. A reader that goes away early, such as `head`, does no harm: reports are written in any
//! case.

use std::io::Write;

/// Prints a result on standard output.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a note on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sluice-stress: {text}");
}
