//! An account as one line of text: of a rate limit `used at recalled_until`, then `gateway held demand lowest` for each
//! gateway; of slots `gateway held demand` for each.

use policy::{Holding, RateAccount, SlotAccount, SlotHolding};
use std::collections::HashMap;
use std::fmt::Write as _;

/// The ids of accounts of slots begin with it.
pub(super) const SLOTS: &str = "slots/";

/// Lines of accounts by their ids, and the store's time in microseconds.
pub(super) struct Lines {
    pub(super) now_us: u64,
    pub(super) by_id: HashMap<String, String>,
}

/// The line of a rate limit's account.
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

/// The rate limit's account of a line; an empty one where there is none.
pub(super) fn decode(line: &str) -> RateAccount<String> {
    let mut words = line.split(' ');
    let mut account = RateAccount {
        used: number(words.next()),
        at_us: number(words.next()),
        recalled_until_us: number(words.next()),
        holders: Vec::new(),
    };
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

/// The line of an account of slots.
pub(super) fn encode_slots(account: &SlotAccount<String>) -> String {
    let holders = account.holders.iter();
    let holders = holders.map(|(gateway, holding)| format!("{gateway} {} {}", holding.held, holding.demand));
    holders.collect::<Vec<_>>().join(" ")
}

/// The account of slots of a line; an empty one where there is none.
pub(super) fn decode_slots(line: &str) -> SlotAccount<String> {
    let mut words = line.split_ascii_whitespace();
    let mut account = SlotAccount::default();
    while let Some(gateway) = words.next() {
        let holding = SlotHolding {
            held: number(words.next()),
            demand: number(words.next()),
        };
        account.holders.push((gateway.to_owned(), holding));
    }
    account
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
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
        let slots = SlotAccount {
            holders: vec![
                ("5f0c3f6f4cbb1f60".to_owned(), SlotHolding { held: 3, demand: 4 }),
                ("b".to_owned(), SlotHolding::default()),
            ],
        };
        assert_eq!(decode_slots(&encode_slots(&slots)), slots);
        assert_eq!(decode_slots(""), SlotAccount::default());
    }
}
