//! Listeners: where the broker binds, and what it tells clients to connect to.
//!
//! An entry is `host:port` or `PLAINTEXT://host:port`, an IPv6 address in brackets. Names are not looked up here. The
//! n-th advertised address belongs to the n-th listener, so a client is told the address it can reach. The admin listener is
//! one such place, for HTTP, which nobody is told of.
//! Source: Kafka's `listeners` and `advertised.listeners` (without `listener.security.protocol.map`).

use core::net::{IpAddr, Ipv6Addr};

/// What a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindHost {
    /// `localhost`: 127.0.0.1 and, where the machine has it, [::1].
    Localhost,
    /// An empty host or [::]: every address of the machine, IPv4 and IPv6.
    Every,
    /// This address.
    Address(IpAddr),
    /// Whatever this name resolves to.
    Name(String),
}

/// An address as clients are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; absent where it is the one that the listener got.
    pub port: Option<u16>,
}

/// A place to listen and the address that its clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What to bind.
    pub host: BindHost,
    /// The port to bind; 0 takes a free one.
    pub port: u16,
    /// What clients are told.
    pub advertised: Advertised,
}

/// Why a list of listeners is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// Not `host:port`.
    #[error("'{entry}' is not host:port or PLAINTEXT://host:port (an IPv6 address in brackets)")]
    Form {
        /// The entry.
        entry: String,
    },
    /// Neither `host:port` nor `none`.
    #[error("'{entry}' is not host:port (an IPv6 address in brackets) or none")]
    AdminForm {
        /// The entry.
        entry: String,
    },
    /// A security protocol that is not there.
    #[error("'{entry}': the only protocol is PLAINTEXT")]
    Protocol {
        /// The entry.
        entry: String,
    },
    /// The same address and port twice.
    #[error("'{entry}' is given twice")]
    Twice {
        /// The entry.
        entry: String,
    },
    /// Not one advertised address for each listener.
    #[error("{listeners} in 'listeners' but {advertised} advertised: one for each, in the same order")]
    Count {
        /// Entries of `listeners`.
        listeners: usize,
        /// Entries of `advertised.listeners`.
        advertised: usize,
    },
    /// Every address is bound, and none is told.
    #[error(
        "'{entry}' binds every address, and clients cannot connect to that: set advertised.listeners (--advertise)"
    )]
    NothingToAdvertise {
        /// The entry.
        entry: String,
    },
    /// An address that no client can connect to is advertised.
    #[error("'{entry}' cannot be advertised: clients cannot connect to it")]
    Unreachable {
        /// The entry.
        entry: String,
    },
}

impl Listener {
    /// Joins the entries of `listeners` with those of `advertised.listeners`, if there are any.
    pub fn parse_all(listeners: &[String], advertised: Option<&[String]>) -> Result<Vec<Listener>, ListenerError> {
        let told = advertised.unwrap_or(listeners);
        if told.len() != listeners.len() {
            return Err(ListenerError::Count { listeners: listeners.len(), advertised: told.len() });
        }
        let mut parsed: Vec<Listener> = Vec::with_capacity(listeners.len());
        for (entry, told) in listeners.iter().zip(told) {
            let (host, port) = host_and_port(entry)?;
            let host = bind_host(host);
            if port != 0 && parsed.iter().any(|earlier| earlier.host == host && earlier.port == port) {
                return Err(ListenerError::Twice { entry: entry.clone() });
            }
            let advertised = parse_advertised(told, advertised.is_some())?;
            parsed.push(Listener { host, port, advertised });
        }
        Ok(parsed)
    }
}

/// Where metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminListener {
    /// What to bind.
    pub host: BindHost,
    /// The port to bind; 0 takes a free one.
    pub port: u16,
}

impl AdminListener {
    /// Reads `host:port`; `none` is no listener.
    pub fn parse(entry: &str) -> Result<Option<AdminListener>, ListenerError> {
        if entry == "none" {
            return Ok(None);
        }
        let form = || ListenerError::AdminForm { entry: entry.to_owned() };
        if entry.contains("://") {
            return Err(form());
        }
        let (host, port) = host_and_port(entry).map_err(|_| form())?;
        Ok(Some(AdminListener { host: bind_host(host), port }))
    }
}

fn parse_advertised(entry: &str, explicit: bool) -> Result<Advertised, ListenerError> {
    let (host, port) = host_and_port(entry)?;
    let everywhere = host.is_empty() || host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    match (everywhere, explicit) {
        (false, _) => Ok(Advertised { host: host.to_owned(), port: (port != 0).then_some(port) }),
        (true, true) => Err(ListenerError::Unreachable { entry: entry.to_owned() }),
        (true, false) => Err(ListenerError::NothingToAdvertise { entry: entry.to_owned() }),
    }
}

fn bind_host(host: &str) -> BindHost {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.is_unspecified() => BindHost::Every,
        Ok(address) => BindHost::Address(address),
        Err(_) if host.is_empty() => BindHost::Every,
        Err(_) if host.eq_ignore_ascii_case("localhost") => BindHost::Localhost,
        Err(_) => BindHost::Name(host.to_owned()),
    }
}

/// Splits an entry into host (without brackets, possibly empty) and port.
fn host_and_port(entry: &str) -> Result<(&str, u16), ListenerError> {
    let form = || ListenerError::Form { entry: entry.to_owned() };
    let address = match entry.split_once("://") {
        Some((protocol, address)) if protocol.eq_ignore_ascii_case("PLAINTEXT") => address,
        Some(_) => return Err(ListenerError::Protocol { entry: entry.to_owned() }),
        None => entry,
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    // u16's own parser takes a leading '+'.
    let port = port.parse().ok().filter(|_| port.bytes().all(|digit| digit.is_ascii_digit())).ok_or_else(form)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => Some(host).filter(|host| host.chars().all(legal)),
    };
    Ok((host.ok_or_else(form)?, port))
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn parse(listeners: &str, advertised: Option<&str>) -> Result<Vec<Listener>, ListenerError> {
        let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        Listener::parse_all(&split(listeners), advertised.map(split).as_deref())
    }

    #[test]
    fn entries_are_read_with_and_without_protocol() {
        let told = |host: &str, port| Advertised { host: host.to_owned(), port };
        for (entry, host, port, advertised) in [
            ("localhost:9092", BindHost::Localhost, 9092, told("localhost", Some(9092))),
            ("PLAINTEXT://localhost:0", BindHost::Localhost, 0, told("localhost", None)),
            ("127.0.0.1:1", BindHost::Address(Ipv4Addr::LOCALHOST.into()), 1, told("127.0.0.1", Some(1))),
            ("[::1]:9092", BindHost::Address(Ipv6Addr::LOCALHOST.into()), 9092, told("::1", Some(9092))),
            ("broker-1.lan:9", BindHost::Name("broker-1.lan".to_owned()), 9, told("broker-1.lan", Some(9))),
        ] {
            assert_eq!(parse(entry, None), Ok(vec![Listener { host, port, advertised }]), "{entry}");
        }
    }

    #[test]
    fn the_advertised_address_belongs_to_its_listener() {
        let both = parse(":9092,[::]:9093", Some("a.lan:19092,b.lan:0")).expect("valid");
        assert_eq!((&both[0].host, &both[1].host), (&BindHost::Every, &BindHost::Every));
        assert_eq!(both[0].advertised, Advertised { host: "a.lan".to_owned(), port: Some(19_092) });
        assert_eq!(both[1].advertised, Advertised { host: "b.lan".to_owned(), port: None });
    }

    #[test]
    fn what_no_client_can_use_is_refused() {
        for entry in [":9092", "0.0.0.0:9092", "[::]:9092"] {
            assert!(matches!(parse(entry, None), Err(ListenerError::NothingToAdvertise { .. })), "{entry}");
            assert!(matches!(parse("localhost:1", Some(entry)), Err(ListenerError::Unreachable { .. })), "{entry}");
        }
        assert!(matches!(parse("a:1,b:2", Some("a:1")), Err(ListenerError::Count { listeners: 2, advertised: 1 })));
        assert!(matches!(parse("a:1,a:1", None), Err(ListenerError::Twice { .. })));
        assert!(parse("a:0,a:0", None).is_ok());
    }

    #[test]
    fn the_admin_listener_is_one_address_or_none() {
        let parsed = |entry: &str| AdminListener::parse(entry).map(|found| found.map(|at| (at.host, at.port)));
        assert_eq!(parsed("none"), Ok(None));
        assert_eq!(parsed("127.0.0.1:0"), Ok(Some((BindHost::Address(Ipv4Addr::LOCALHOST.into()), 0))));
        assert_eq!(parsed("[::1]:9644"), Ok(Some((BindHost::Address(Ipv6Addr::LOCALHOST.into()), 9644))));
        assert_eq!(parsed(":9644"), Ok(Some((BindHost::Every, 9644))));
        for entry in ["None", "9644", "a:", "http://a:1", "PLAINTEXT://a:1", "a:1:2"] {
            assert_eq!(parsed(entry), Err(ListenerError::AdminForm { entry: entry.to_owned() }));
        }
    }

    #[test]
    fn malformed_entries_are_refused() {
        for entry in
            ["localhost", "localhost:", "localhost:65536", "a:+1", "::1:9092", "[::1:9092", "[a]:1", "a b:1", "a/b:1"]
        {
            assert!(matches!(parse(entry, None), Err(ListenerError::Form { .. })), "{entry}");
        }
        for entry in ["SSL://a:1", "://a:1"] {
            assert!(matches!(parse(entry, None), Err(ListenerError::Protocol { .. })), "{entry}");
        }
    }
}
