//! Ports of servers that come back where they were.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that the system chose, and that is nobody else's until this is dropped: a socket is bound to it and does not
/// listen. Whoever binds the same port and listens must ask for that address by number and allow its reuse, as Java
/// does; a broker that is down therefore finds its port again.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    _bound: TcpSocket,
}

impl Port {
    pub(super) fn reserve() -> Self {
        let bound = TcpSocket::new_v4().expect("a socket");
        bound.set_reuseaddr(true).expect("an option");
        bound.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        Self { address: bound.local_addr().expect("an address"), _bound: bound }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }
}
