//! Where a request comes from. Its address is the connection's, and only a proxy that the operator trusts can say
//! otherwise: anybody can send a forwarding header.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use backend::Origin;
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whom to believe about addresses, and whose clients not to count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) unlimited: Vec<IpNet>,
}

fn is_among(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

impl Proxies {
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        is_among(&self.trusted, peer.to_canonical())
    }

    /// Where a request of a connection comes from.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let address = self.address(peer.to_canonical(), headers);
        Origin { address, is_shared: is_among(&self.unlimited, address) }
    }

    /// True if a peer has no share of the connections: many clients are behind it, or the operator has exempted it.
    pub(crate) fn exempts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        is_among(&self.trusted, peer) || is_among(&self.unlimited, peer)
    }

    /// Each proxy appends the address that it was asked from: the last one that none of ours has written is the client's. Read as
    /// bytes, from the right: what the client wrote before it, of whatever bytes, hides nothing.
    fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer;
        let mut hops =
            headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        while is_among(&self.trusted, address) {
            let Some(hop) = hops.next().and_then(parse) else { break };
            address = hop;
        }
        address
    }
}

/// An address as proxies write it: some add a port.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let address = hop.parse().or_else(|_| hop.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn address(proxies: &Proxies, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies.origin(peer.parse().unwrap(), &headers).address.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_about_what_it_has_seen() {
        let nobody = Proxies::default();
        assert_eq!(address(&nobody, "192.0.2.1", &["198.51.100.1"]), "192.0.2.1");

        let nets = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let proxies = Proxies { trusted: nets, unlimited: vec!["203.0.113.0/24".parse().unwrap()] };
        assert_eq!(address(&proxies, "192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "who asks is no proxy");
        assert_eq!(address(&proxies, "10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "::1", &["9.9.9.9, 198.51.100.1", "10.1.1.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["9.9.9.9, 198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(address(&proxies, "10.0.0.1", &["é, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["\u{80}", "198.51.100.1, 10.1.1.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["198.51.100.1, é"]), "10.0.0.1", "what a proxy wrote itself");
        for useless in [&[][..], &["unknown"], &["198.51.100.1, "]] {
            assert_eq!(address(&proxies, "10.0.0.1", useless), "10.0.0.1");
        }
        assert!(proxies.origin("203.0.113.9".parse().unwrap(), &HeaderMap::new()).is_shared);
        assert!(!proxies.origin("203.0.114.9".parse().unwrap(), &HeaderMap::new()).is_shared);
    }
}
