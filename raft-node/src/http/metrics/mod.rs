//! `/metrics`: this node in numbers, as Prometheus reads them (OpenMetrics 1.0). Names and labels are part of the
//! interface: [docs/operate/seeing.md](../../../../docs/operate/seeing.md) lists them.

mod families;
mod sample;
mod table;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::http::recent::Recent;
use crate::member::Member;
use sample::Sample;

/// The type of the text (OpenMetrics 1.0).
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How old an answer may be, however often it is asked for.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer.
#[derive(Debug)]
pub(super) struct Metrics(Recent<str>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Recent::new(FRESH))
    }
}

impl Metrics {
    /// The text, at most [`FRESH`] old.
    pub(super) async fn text(&self, member: Option<Arc<Member>>) -> Arc<str> {
        self.0.get(made(member)).await
    }
}

async fn made(member: Option<Arc<Member>>) -> Arc<str> {
    // The filter's counters are read from the kernel, behind a lock that an attachment may hold.
    let made = tokio::task::spawn_blocking(move || render(Sample::of(member.as_deref()))).await;
    made.unwrap_or_default().into()
}

fn render(sample: Sample) -> String {
    let mut registry = Registry::with_prefix("farm");
    registry.register_collector(Box::new(sample));
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
