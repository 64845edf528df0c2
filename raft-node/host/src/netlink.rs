//! One routing netlink socket and the task that drives it.

use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::Error;

/// A routing netlink socket, bound for life to the network namespace of the thread that opened it.
///
/// Requests may run concurrently. The socket closes when this value is dropped.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    driver: Driver,
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
        Ok(Netlink { handle, driver: Driver::spawn(connection) })
    }

    pub(crate) fn handle(&self, action: impl FnOnce() -> String) -> Result<&Handle, Error> {
        if self.driver.0.is_finished() {
            return Err(Error::Closed { action: action() });
        }
        Ok(&self.handle)
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
