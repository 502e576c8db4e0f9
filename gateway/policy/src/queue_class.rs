//! The classes of the queue, and tables with an entry for each.

use crate::{Class, Priority};
use std::ops::{Index, IndexMut};

/// A class of the queue: the three priorities, and batch requests of any priority behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueClass {
    /// Interactive requests of high priority.
    High,
    /// Interactive requests of normal priority.
    Normal,
    /// Interactive requests of low priority.
    Low,
    /// Batch requests.
    Batch,
}

impl QueueClass {
    /// All of them, the most important first.
    pub const ALL: [QueueClass; 4] = [QueueClass::High, QueueClass::Normal, QueueClass::Low, QueueClass::Batch];

    /// The class of a request.
    pub fn of(class: Class, priority: Priority) -> Self {
        match (class, priority) {
            (Class::Batch, _) => QueueClass::Batch,
            (Class::Interactive, Priority::High) => QueueClass::High,
            (Class::Interactive, Priority::Normal) => QueueClass::Normal,
            (Class::Interactive, Priority::Low) => QueueClass::Low,
        }
    }

    /// The name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            QueueClass::High => "high",
            QueueClass::Normal => "normal",
            QueueClass::Low => "low",
            QueueClass::Batch => "batch",
        }
    }

    /// The classes that are less important, the least important first.
    pub(crate) fn below(self) -> impl Iterator<Item = QueueClass> {
        Self::ALL.into_iter().rev().take_while(move |other| *other > self)
    }
}

/// A value for each class of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByClass<T>([T; 4]);

impl<T> ByClass<T> {
    /// A table made of a value for each class.
    pub fn from_fn(mut make: impl FnMut(QueueClass) -> T) -> Self {
        Self(QueueClass::ALL.map(&mut make))
    }

    /// Each class with its value, the most important first.
    pub fn iter(&self) -> impl Iterator<Item = (QueueClass, &T)> {
        QueueClass::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<QueueClass> for ByClass<T> {
    type Output = T;

    fn index(&self, class: QueueClass) -> &T {
        &self.0[class as usize]
    }
}

impl<T> IndexMut<QueueClass> for ByClass<T> {
    fn index_mut(&mut self, class: QueueClass) -> &mut T {
        &mut self.0[class as usize]
    }
}
