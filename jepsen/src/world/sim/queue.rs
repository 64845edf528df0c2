//! What will happen, in order. Events of the same instant happen in the order in which they were put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::clock::RealTime;

/// A queue of events.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    serial: u64,
}

struct Due<E> {
    at: RealTime,
    serial: u64,
    event: E,
}

impl<E> Due<E> {
    fn key(&self) -> (RealTime, u64) {
        (self.at, self.serial)
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), serial: 0 }
    }
}

impl<E> Queue<E> {
    /// `event` will happen at `at`.
    pub fn put(&mut self, at: RealTime, event: E) {
        self.serial += 1;
        self.heap.push(Reverse(Due { at, serial: self.serial, event }));
    }

    /// The next event, if it happens before `end`.
    pub fn next_before(&mut self, end: RealTime) -> Option<(RealTime, E)> {
        if self.heap.peek().is_none_or(|Reverse(due)| due.at >= end) {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}
