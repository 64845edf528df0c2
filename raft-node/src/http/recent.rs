//! An answer that is made once for all who ask within a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer, and how old it may be.
#[derive(Debug)]
pub(super) struct Recent<T: ?Sized> {
    last: Mutex<Option<(Instant, Arc<T>)>>,
    fresh: Duration,
}

impl<T: ?Sized> Recent<T> {
    /// None yet.
    pub(super) const fn new(fresh: Duration) -> Self {
        Self { last: Mutex::const_new(None), fresh }
    }

    /// The last answer, made anew where it is too old. Who comes while it is made waits for it instead of making another.
    pub(super) async fn get(&self, make: impl Future<Output = Arc<T>>) -> Arc<T> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < self.fresh
        {
            return answer.clone();
        }
        let answer = make.await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_made_once_for_all_who_ask_in_time() {
        let recent = Recent::new(Duration::from_secs(60));
        let first = recent.get(async { Arc::new(1) }).await;
        assert!(Arc::ptr_eq(&first, &recent.get(async { Arc::new(2) }).await), "it was not made again");
        *recent.last.lock().await = Some((Instant::now() - Duration::from_secs(60), first));
        assert_eq!(*recent.get(async { Arc::new(3) }).await, 3, "and an old one is");
    }
}
