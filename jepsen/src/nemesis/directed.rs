//! Schedules written by hand: each leads to the edge of one rule.
