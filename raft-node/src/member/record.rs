//! What the log made happen, in the journal of this node.

use std::sync::Arc;

use farm_core::id::NodeId;
use tokio::sync::watch;

use crate::journal::{Journal, Record, now_ms};
use crate::raft::{self, Snapshot};

/// Writes what the log made happen into the journal of this node.
pub(super) async fn write_events(
    me: NodeId,
    mut events: tokio::sync::broadcast::Receiver<raft::Happened>,
    state: watch::Receiver<Arc<Snapshot>>,
    journal: Arc<Journal>,
) {
    loop {
        match events.recv().await {
            Ok(happened) => {
                // Not held while the journal works: whoever publishes the state waits for its readers.
                let epoch = state.borrow().state.epoch.0;
                journal.put(record(me, &happened, epoch));
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events lost for the journal");
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn record(me: NodeId, happened: &raft::Happened, epoch: u64) -> Record {
    let raft::Happened { entry, event, .. } = happened;
    Record {
        id: format!("log-{}.{}", entry.index, happened.position),
        time_unix_ms: now_ms(),
        node: me.0,
        kind: event.kind.code().into(),
        resource: event.kind.resource(),
        text: event.kind.text(),
        // An entry's first event stands for it.
        cause: event.cause.map(|e| format!("log-{}.0", e.index)).unwrap_or_default(),
        index: entry.index,
        epoch,
    }
}
