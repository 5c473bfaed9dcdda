//! The ready line: the one line on standard output, written once every listener accepts and recovery is done.
//!
//! Scripts and tests wait for it and read the real ports from it, so its form is fixed:
//! `corelane ready version=0.1.0 node=1 cluster=<22 characters> shards=1 listen=127.0.0.1:9092,[::1]:9092 admin=-
//! partitions=0 recovered=0 ms=34` (on one line). It is formatted and read here and printed elsewhere.

use core::net::SocketAddr;
use core::time::Duration;
use std::fmt;
use std::str::FromStr;

use crate::types::{BrokerId, ClusterId};

/// What the ready line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyLine {
    /// The broker's version.
    pub version: String,
    /// Its id.
    pub node: BrokerId,
    /// The id of its cluster.
    pub cluster: ClusterId,
    /// How many shards run.
    pub shards: u16,
    /// The addresses that accept clients, with their real ports.
    pub listen: Vec<SocketAddr>,
    /// The address of the admin server; absent where none runs.
    pub admin: Option<SocketAddr>,
    /// Partitions that are open.
    pub partitions: usize,
    /// Partitions whose log was scanned because the last stop was not clean.
    pub recovered: usize,
    /// From the start of the process until now.
    pub elapsed: Duration,
}

impl fmt::Display for ReadyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen = self.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let admin = self.admin.map_or_else(|| "-".to_owned(), |address| address.to_string());
        write!(f, "corelane ready version={} node={} cluster={}", self.version, self.node, self.cluster)?;
        write!(f, " shards={} listen={listen} admin={admin}", self.shards)?;
        write!(f, " partitions={} recovered={} ms={}", self.partitions, self.recovered, self.elapsed.as_millis())
    }
}

/// A line that is not a ready line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ready line, {missing} is missing or malformed: {line:?}")]
pub struct ReadyLineError {
    /// The field.
    pub missing: &'static str,
    /// The line.
    pub line: String,
}

impl FromStr for ReadyLine {
    type Err = ReadyLineError;

    fn from_str(line: &str) -> Result<ReadyLine, ReadyLineError> {
        let wrong = |missing| ReadyLineError { missing, line: line.to_owned() };
        let fields = line.trim_end().strip_prefix("corelane ready ").ok_or_else(|| wrong("its beginning"))?;
        let text = |name: &'static str| {
            let field = fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.ok_or_else(|| wrong(name))
        };
        fn parsed<T: FromStr>(text: &str) -> Option<T> {
            text.parse().ok()
        }
        let listen = text("listen")?.split(',').map(parsed).collect::<Option<Vec<_>>>();
        let admin = match text("admin")? {
            "-" => None,
            address => Some(parsed(address).ok_or_else(|| wrong("admin"))?),
        };
        Ok(ReadyLine {
            version: text("version")?.to_owned(),
            node: parsed(text("node")?).and_then(BrokerId::new).ok_or_else(|| wrong("node"))?,
            cluster: parsed(text("cluster")?).ok_or_else(|| wrong("cluster"))?,
            shards: parsed(text("shards")?).ok_or_else(|| wrong("shards"))?,
            listen: listen.ok_or_else(|| wrong("listen"))?,
            admin,
            partitions: parsed(text("partitions")?).ok_or_else(|| wrong("partitions"))?,
            recovered: parsed(text("recovered")?).ok_or_else(|| wrong("recovered"))?,
            elapsed: parsed(text("ms")?).map(Duration::from_millis).ok_or_else(|| wrong("ms"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ready() -> ReadyLine {
        ReadyLine {
            version: "0.1.0".to_owned(),
            node: BrokerId::new(1).expect("not negative"),
            cluster: ClusterId::from_bytes([0; 16]),
            shards: 2,
            listen: vec![(Ipv4Addr::LOCALHOST, 9092).into(), (Ipv6Addr::LOCALHOST, 9092).into()],
            admin: None,
            partitions: 12,
            recovered: 0,
            elapsed: Duration::from_millis(34),
        }
    }

    #[test]
    fn the_form_is_fixed() {
        assert_eq!(
            ready().to_string(),
            "corelane ready version=0.1.0 node=1 cluster=AAAAAAAAAAAAAAAAAAAAAA shards=2 \
             listen=127.0.0.1:9092,[::1]:9092 admin=- partitions=12 recovered=0 ms=34"
        );
    }

    #[test]
    fn it_reads_back_and_every_missing_field_is_named() {
        let with_admin = ReadyLine { admin: Some((Ipv4Addr::LOCALHOST, 9644).into()), ..ready() };
        for line in [ready(), with_admin] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        let text = ready().to_string();
        for name in ["version", "node", "cluster", "shards", "listen", "admin", "partitions", "recovered", "ms"] {
            let without = text.replace(&format!(" {name}="), " other=");
            assert_eq!(without.parse::<ReadyLine>().map_err(|error| error.missing), Err(name));
        }
        assert!("".parse::<ReadyLine>().is_err());
    }
}
