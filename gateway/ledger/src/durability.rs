//! Durability of an acknowledged record.

/// When a record counts as written, and with it what it survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is in memory; written within a tenth of a second. Survives an orderly stop.
    Relaxed,
    /// When the operating system has it. Survives `kill -9` and a panic.
    #[default]
    Strict,
    /// When the disk has it: one `fdatasync` for all that wait. Survives the loss of power.
    Synced,
}
