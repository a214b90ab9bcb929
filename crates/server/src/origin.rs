//! Determines the client address of a request.
//!
//! This is the peer address of the connection, unless the peer is a proxy that the operator
//! trusts. Forwarding headers of other peers are ignored, because any client can send them.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use backend::Origin;
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of trusted proxies, and the networks without limits per place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    /// Proxies whose `X-Forwarded-For` header is used.
    pub(crate) trusted: Vec<IpNet>,
    /// Networks that many clients share, so that the limits per place do not apply.
    pub(crate) unlimited: Vec<IpNet>,
}

/// True if one of the networks contains the address.
fn is_among(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

impl Proxies {
    /// True if the peer is a trusted proxy.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        is_among(&self.trusted, peer.to_canonical())
    }

    /// Returns the origin of a request from `peer`.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let address = self.address(peer.to_canonical(), headers);
        Origin { address, is_shared: is_among(&self.unlimited, address) }
    }

    /// True if the limit of connections per place does not apply to a peer: it is a trusted proxy,
    /// or in a network without limits.
    pub(crate) fn exempts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        is_among(&self.trusted, peer) || is_among(&self.unlimited, peer)
    }

    /// Returns the client address. Each proxy appends the address of its peer to the header, so
    /// the client is the last address that is not a trusted proxy. Reads the header from the right
    /// and as bytes, because the left part comes from the client and may be invalid.
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

/// Parses an address in a forwarding header, with an optional port.
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
    fn only_trusted_proxies_can_set_the_client_address() {
        let none = Proxies::default();
        assert_eq!(address(&none, "192.0.2.1", &["198.51.100.1"]), "192.0.2.1");

        let nets = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let proxies = Proxies { trusted: nets, unlimited: vec!["203.0.113.0/24".parse().unwrap()] };
        assert_eq!(address(&proxies, "192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "the peer is not a proxy");
        assert_eq!(address(&proxies, "10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "::1", &["9.9.9.9, 198.51.100.1", "10.1.1.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["9.9.9.9, 198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(address(&proxies, "10.0.0.1", &["é, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(address(&proxies, "10.0.0.1", &["\u{80}", "198.51.100.1, 10.1.1.1"]), "198.51.100.1");
        assert_eq!(
            address(&proxies, "10.0.0.1", &["198.51.100.1, é"]),
            "10.0.0.1",
            "an invalid address from a trusted proxy"
        );
        for useless in [&[][..], &["unknown"], &["198.51.100.1, "]] {
            assert_eq!(address(&proxies, "10.0.0.1", useless), "10.0.0.1");
        }
        assert!(proxies.origin("203.0.113.9".parse().unwrap(), &HeaderMap::new()).is_shared);
        assert!(!proxies.origin("203.0.114.9".parse().unwrap(), &HeaderMap::new()).is_shared);
    }
}
