//! Who asks, by address: the rightmost hop that we do not trust.
//!
//! Every proxy adds the address it was asked from at the right end of the header; what stands further left came from outside and may be
//! anything. With `n` trusted proxies before this server the `n`th address from the right is the caller's. Without any, the
//! headers are not read at all.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use serde::Deserialize;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Providers give a customer 64 bits of their own, any of which costs nothing: they are one caller.
const IPV6_NETWORK: u128 = !0 << 64;

/// Where trusted proxies say who asked them. Only one is read: a proxy that writes one of them passes the other on as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For: client, proxy`.
    #[default]
    XForwardedFor,
    /// RFC 7239, `Forwarded: for=client, for=proxy`.
    Forwarded,
}

/// The proxies before this server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proxies {
    /// How many of them are ours.
    pub trusted: usize,
    /// What they write.
    pub header: ProxyHeader,
}

impl Proxies {
    /// The caller's address, or its network where it is IPv6. A header that is missing or says nothing leaves the peer: all that come
    /// through that proxy are one caller then, which is too strict and never too lax.
    pub fn caller(self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        network(self.forwarded(headers).unwrap_or(peer))
    }

    fn forwarded(self, headers: &HeaderMap) -> Option<IpAddr> {
        let name = match self.header {
            _ if self.trusted == 0 => return None,
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => header::FORWARDED,
        };
        let lines = headers.get_all(name).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')).take(self.trusted);
        // Fewer than there are proxies: the outer ones were passed by, and the leftmost hop was still written by one of ours.
        let hop = hops.last()?;
        match self.header {
            ProxyHeader::XForwardedFor => address(hop),
            ProxyHeader::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| address(value))?
            }),
        }
    }
}

/// An address with or without quotes, brackets and port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(own) => Ipv6Addr::from_bits(own.to_bits() & IPV6_NETWORK).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn caller(trusted: usize, header: ProxyHeader, lines: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = IpAddr::from([10, 0, 0, 9]);
        Proxies { trusted, header }.caller(peer, &headers).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let xff = |trusted, lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            caller(trusted, ProxyHeader::XForwardedFor, &lines)
        };
        assert_eq!(xff(0, &["1.1.1.1"]), "10.0.0.9", "nobody is trusted");
        assert_eq!(xff(1, &[]), "10.0.0.9");
        assert_eq!(xff(1, &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(xff(1, &["6.6.6.6, 1.1.1.1"]), "1.1.1.1", "the left one is the caller's own invention");
        assert_eq!(xff(1, &["6.6.6.6", "7.7.7.7 , 1.1.1.1"]), "1.1.1.1", "lines are one list");
        assert_eq!(xff(2, &["6.6.6.6", "1.1.1.1,10.0.0.8"]), "1.1.1.1");
        assert_eq!(xff(2, &["6.6.6.6, 1.1.1.1", "10.0.0.8"]), "1.1.1.1");
        assert_eq!(xff(3, &["1.1.1.1, 10.0.0.8"]), "1.1.1.1", "one proxy was passed by");
        assert_eq!(xff(1, &["1.1.1.1, unknown"]), "10.0.0.9", "what is no address is not guessed");
        assert_eq!(xff(1, &["1.1.1.1, "]), "10.0.0.9");
        assert_eq!(xff(1, &["1.1.1.1:4711"]), "1.1.1.1");
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_named_and_only_there() {
        let forwarded = |lines: &[(&'static str, &'static str)]| caller(1, ProxyHeader::Forwarded, lines);
        assert_eq!(forwarded(&[("forwarded", "for=6.6.6.6, for=1.1.1.1;proto=https")]), "1.1.1.1");
        assert_eq!(forwarded(&[("forwarded", "proto=https;For=\"1.1.1.1:80\"")]), "1.1.1.1");
        assert_eq!(forwarded(&[("forwarded", "for=\"[2001:db8:1:2:3::4]:4711\"")]), "2001:db8:1:2::");
        assert_eq!(forwarded(&[("forwarded", "for=_hidden")]), "10.0.0.9");
        assert_eq!(forwarded(&[("x-forwarded-for", "1.1.1.1")]), "10.0.0.9");
        assert_eq!(caller(1, ProxyHeader::XForwardedFor, &[("forwarded", "for=1.1.1.1")]), "10.0.0.9");
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller_and_an_ipv4_address_is_one_however_it_is_written() {
        let xff = |line| caller(1, ProxyHeader::XForwardedFor, &[("x-forwarded-for", line)]);
        assert_eq!(xff("2001:db8:0:1::1"), xff("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(xff("2001:db8:0:1::1"), xff("2001:db8:0:2::1"));
        assert_eq!(xff("::ffff:1.1.1.1"), "1.1.1.1");
        assert_eq!(xff("[2001:db8::1]"), "2001:db8::");
    }
}
