//! One routing netlink socket and the task that drives it.

use std::sync::Arc;

use futures::{TryStream, TryStreamExt};
use rtnetlink::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::Error;

/// A routing netlink socket, bound for life to the network namespace of the thread that opened it.
///
/// Requests may run concurrently. The socket closes when this value is dropped.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    driver: Driver,
    /// Whose dump it is now.
    turn: Arc<Mutex<()>>,
}

impl Netlink {
    /// Opens the socket in the calling thread's network namespace. Must be called within a tokio
    /// runtime, whose I/O driver it uses.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(|e| Error::system("open a routing netlink socket", e))?;
        Ok(Netlink { handle, driver: Driver::spawn(connection), turn: Arc::default() })
    }

    pub(crate) fn handle(&self, action: impl FnOnce() -> String) -> Result<&Handle, Error> {
        if self.driver.0.is_finished() {
            return Err(Error::Closed { action: action() });
        }
        Ok(&self.handle)
    }

    /// All that the kernel answers to a dump. It does one per socket at a time and refuses a second with `EBUSY`
    /// (`__netlink_dump_start`), so that they take turns here; one that nobody waits for any more is read to its end.
    pub(crate) async fn dump<S>(
        &self,
        action: fn() -> String,
        request: impl FnOnce(&Handle) -> S + Send + 'static,
    ) -> Result<Vec<S::Ok>, Error>
    where
        S: TryStream<Error = rtnetlink::Error> + Send + 'static,
        S::Ok: Send + 'static,
    {
        let (handle, turn) = (self.handle(action)?.clone(), self.turn.clone());
        let dump = tokio::spawn(async move {
            let _turn = turn.lock_owned().await;
            request(&handle).try_collect::<Vec<_>>().await
        });
        let answers = dump.await.map_err(|_| Error::Closed { action: action() })?;
        answers.map_err(|e| Error::rtnetlink(action(), e))
    }
}

/// The task of one netlink connection; ends it when dropped.
#[derive(Debug)]
pub(crate) struct Driver(JoinHandle<()>);

impl Driver {
    pub(crate) fn spawn(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Driver(tokio::spawn(connection))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
