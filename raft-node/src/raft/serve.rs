//! Listening for peers, on Raft's own runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use farm_proto::v1::peer_server::PeerServer;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::Handle;
use super::link::MESSAGE_MAX;
use super::server::{PeerHandler, PeerService};

/// A peer that vanished is noticed after this much silence, and its connection freed.
const KEEPALIVE: Duration = Duration::from_secs(5);

impl Handle {
    /// Answers peers on `listeners` (bound to addresses of the cluster networks, never to all) until
    /// [`Handle::shutdown`]. `handler` answers what is not Raft's.
    ///
    /// # Errors
    /// A listener that cannot be used, or a handle that was shut down.
    pub async fn serve(&self, listeners: Vec<TcpListener>, handler: Arc<dyn PeerHandler>) -> io::Result<()> {
        let threads = self.inner.threads();
        let runtime = threads.0.as_ref().ok_or_else(|| io::Error::other("Raft has been shut down"))?;
        let _entered = runtime.enter();
        for listener in listeners {
            runtime.spawn(self.server(listener, handler.clone())?);
        }
        Ok(())
    }

    fn server(
        &self,
        listener: TcpListener,
        handler: Arc<dyn PeerHandler>,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        listener.set_nonblocking(true)?;
        let shown = listener.local_addr()?;
        let incoming =
            TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
        let gate = self.inner.gate.clone();
        let service = PeerServer::new(PeerService { raft: self.raft().clone(), gate: gate.clone(), handler })
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(InterceptedService::new(service, gate))
            .serve_with_incoming(incoming);
        Ok(async move {
            if let Err(error) = serving.await {
                tracing::error!(%shown, "the peer API has ended: {error}");
            }
        })
    }
}
