//! Output on the terminal. A pipe that is closed early (`| head`) does no harm.

use std::io::Write;

/// The verbosity of the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Nothing but the summary as JSON.
    pub(crate) is_quiet: bool,
    /// More than the original's lines.
    pub(crate) is_verbose: bool,
}

impl Terminal {
    /// One of the original's lines.
    pub(crate) fn line(self, text: &str) {
        if !self.is_quiet {
            print(text);
        }
    }

    /// A line that the original does not have.
    pub(crate) fn detail(self, text: &str) {
        if self.is_verbose {
            self.line(text);
        }
    }
}

/// Prints a line; a closed pipe is no error.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line on standard error.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sluice-eval: {text}");
}

/// The text with its control characters made visible: what a model or a program wrote must not control a terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for each in text.chars() {
        // Those that turn the direction of text around are control characters of Unicode's.
        let is_direction = matches!(each, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if (each.is_control() && each != '\n') || is_direction {
            visible.extend(each.escape_default());
        } else {
            visible.push(each);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(
            visible("a\u{1b}[31mb\r\u{7}\u{9b}é\n"),
            "a\\u{1b}[31mb\\r\\u{7}\\u{9b}é\n"
        );
        assert_eq!(visible("\u{202e}x"), "\\u{202e}x");
    }
}
