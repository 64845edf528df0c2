//! Buckets of a module that are in the same state, taken together.

use std::collections::BTreeMap;

use crate::model::{BucketSet, BucketState};

/// Buckets in the same state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    /// That state.
    pub state: BucketState,
    /// Which buckets.
    pub buckets: BucketSet,
}

/// The groups of an assignment, ascending by state. There are few: a bucket's state says who owns it and which
/// entry changed it last.
#[must_use]
pub fn groups(assignment: &[BucketState]) -> Vec<Group> {
    let mut sets: BTreeMap<&BucketState, BucketSet> = BTreeMap::new();
    for (bucket, state) in assignment.iter().enumerate() {
        sets.entry(state).or_insert_with(|| BucketSet::empty(assignment.len())).insert(bucket);
    }
    sets.into_iter().map(|(state, buckets)| Group { state: state.clone(), buckets }).collect()
}
