//! An account as one line of text: `used at recalled_until`, then `gateway held demand lowest` for each gateway.

use policy::{Holding, RateAccount};
use std::fmt::Write as _;

/// The line of an account.
pub(super) fn encode(account: &RateAccount<String>) -> String {
    let mut line = format!("{} {} {}", account.used, account.at_us, account.recalled_until_us);
    for (gateway, holding) in &account.holders {
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " {gateway} {} {} {}",
            holding.held, holding.demand, holding.lowest
        );
    }
    line
}

/// The account of a line; an empty one where there is none.
pub(super) fn decode(line: &str) -> RateAccount<String> {
    let mut words = line.split(' ');
    let mut account = RateAccount::default();
    let number = |word: Option<&str>| word.and_then(|word| word.parse().ok()).unwrap_or(0);
    account.used = number(words.next());
    account.at_us = number(words.next());
    account.recalled_until_us = number(words.next());
    while let Some(gateway) = words.next() {
        let holding = Holding {
            held: number(words.next()),
            demand: number(words.next()),
            lowest: number(words.next()),
        };
        account.holders.push((gateway.to_owned(), holding));
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_an_account() {
        let holding = |held| Holding {
            held,
            demand: 7,
            lowest: u64::MAX,
        };
        let account = RateAccount {
            used: 60_000_000_000,
            at_us: 1_800_000_000_000_000,
            recalled_until_us: 5,
            holders: vec![
                ("5f0c3f6f4cbb1f60".to_owned(), holding(1)),
                ("b".to_owned(), holding(0)),
            ],
        };
        assert_eq!(decode(&encode(&account)), account);
        assert_eq!(decode(""), RateAccount::default());
    }
}
