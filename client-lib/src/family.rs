//! One address family for a connection's whole life, whatever sockets it lives on.
//!
//! quinn writes a server's IPv4 address as an IPv6 one (`::ffff:a.b.c.d`) on a dual-stack socket and plainly on an IPv4
//! socket, and a connection keeps the form it began with. A socket that an app hands over may be of the other family:
//! here an IPv4 socket speaks in IPv6 addresses, so that a connection can move to it and back.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};

/// A socket for quinn that takes and gives IPv6 addresses.
pub(crate) fn in_ipv6(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let ipv4 = socket.local_addr()?.is_ipv4();
    let socket = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(if ipv4 { Arc::new(Ipv4InIpv6(socket)) } else { socket })
}

#[derive(Debug)]
struct Ipv4InIpv6(Arc<dyn AsyncUdpSocket>);

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn mapped_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(mapped(address.ip()), address.port())
}

impl AsyncUdpSocket for Ipv4InIpv6 {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A real IPv6 address cannot be reached from here; the system says so.
        self.0.try_send(&Transmit {
            destination: SocketAddr::new(transmit.destination.ip().to_canonical(), transmit.destination.port()),
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip.map(|ip| ip.to_canonical()),
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.0.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(count)) = &received {
            for meta in meta.iter_mut().take(*count) {
                meta.addr = mapped_address(meta.addr);
                meta.dst_ip = meta.dst_ip.map(mapped);
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map(mapped_address)
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
