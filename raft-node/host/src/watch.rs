//! A subscription to the kernel's changes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;

use crate::Error;
use crate::netlink::Driver;

/// What a subscription delivers.
pub(crate) enum Notice {
    /// The kernel tells of a change.
    Change(RouteNetlinkMessage),
    /// The kernel dropped messages: they were not read fast enough.
    Lost,
}

/// The changes of some groups, from the moment of [`Watch::open`], in the kernel's order.
#[derive(Debug)]
pub(crate) struct Watch {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    _driver: Driver,
}

impl Watch {
    /// Must be called within a tokio runtime.
    pub(crate) fn open(groups: &[MulticastGroup]) -> Result<Self, Error> {
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(groups)
            .map_err(|e| Error::system("subscribe to changes of the network", e))?;
        Ok(Watch { messages, _driver: Driver::spawn(connection) })
    }
}

impl Stream for Watch {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Notice>> {
        loop {
            let Some((message, _)) = ready!(self.messages.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            match message.payload {
                NetlinkPayload::InnerMessage(message) => return Poll::Ready(Some(Notice::Change(message))),
                NetlinkPayload::Overrun(_) => return Poll::Ready(Some(Notice::Lost)),
                // Acknowledgements and the like say nothing about the network.
                _ => {}
            }
        }
    }
}
