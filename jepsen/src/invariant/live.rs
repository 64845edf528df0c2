//! P5: when everything works again, every bucket has an owner that accepts.

use crate::invariant::View;
use crate::world::sim::walk::walk;

/// Buckets whose new flows nobody accepts.
#[must_use]
pub fn unserved(views: &[View<'_>]) -> Vec<usize> {
    let cells = views.iter().map(|(f, _)| f.in_force().cells.len()).max().unwrap_or(0);
    let served = |cell: &usize| {
        let open: Vec<_> = views
            .iter()
            .map(|(f, now)| Some(f.in_force()).filter(|t| t.is_open(*now)).and_then(|t| t.cells.get(*cell)))
            .collect();
        let mode = open.iter().flatten().next().map(|(mode, _)| *mode);
        let entries: Vec<_> = open.iter().map(|c| c.map(|(_, e)| *e)).collect();
        mode.is_some_and(|mode| walk(mode, &entries).acceptors != 0)
    };
    (0..cells.max(1)).filter(|c| !served(c)).collect()
}
