//! What Produce and Fetch have in common: how they name a topic, and the hint to another leader.
//!
//! Source: KIP-516 (topic ids: Produce 13, Fetch 13), KIP-951 (current leader and its endpoint: Produce 10, Fetch 12 and 16).

use super::cursor::{Cursor, Malformed};
use super::writer::{Writer, varint_bytes};
use crate::types::{BrokerId, LeaderEpoch, TopicId};

/// A topic as a request names it; its response names it in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TopicKey<'a> {
    /// By name, not checked by any rule but UTF-8.
    Name(&'a str),
    /// By id.
    Id(TopicId),
}

impl<'a> TopicKey<'a> {
    pub(crate) fn read(cursor: &mut Cursor<'a>, ids_from: i16) -> Result<TopicKey<'a>, Malformed> {
        if cursor.version() >= ids_from {
            Ok(TopicKey::Id(TopicId::from_bytes(cursor.uuid()?)))
        } else {
            cursor.string().map(TopicKey::Name)
        }
    }

    /// Panics when a version that knows ids is given a name, or the other way round: a bug of the caller, who echoes
    /// what the request held.
    pub(crate) fn write(self, writer: &mut Writer<'_>, version: i16, ids_from: i16) {
        match self {
            TopicKey::Name(name) if version < ids_from => writer.string(name),
            TopicKey::Id(id) if version >= ids_from => writer.raw(&id.bytes()),
            key => panic!("{key:?} does not fit version {version}: ids are used from {ids_from}"),
        }
    }
}

/// Who leads the partition now, as far as this broker knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CurrentLeader {
    /// The leader; `None` if there is none or it is not known.
    pub leader: Option<BrokerId>,
    /// The epoch of its leadership.
    pub epoch: Option<LeaderEpoch>,
}

impl CurrentLeader {
    /// Bytes of the structure: id, epoch, no tagged fields.
    const BYTES: usize = 4 + 4 + 1;

    /// Writes it as tagged field `tag`.
    pub(crate) fn write_tagged(self, writer: &mut Writer<'_>, tag: usize) {
        writer.varint(tag);
        writer.varint(CurrentLeader::BYTES);
        writer.i32(self.leader.map_or(-1, BrokerId::value));
        writer.i32(self.epoch.map_or(-1, LeaderEpoch::value));
        writer.no_tagged_fields();
    }
}

/// Where a leader named in the same response can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeEndpoint<'a> {
    /// The broker.
    pub node: BrokerId,
    /// Its host, as advertised by the listener that the client came in by.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Its rack.
    pub rack: Option<&'a str>,
}

impl NodeEndpoint<'_> {
    /// Bytes in a flexible version: id, host, port, rack, no tagged fields.
    fn bytes(&self) -> usize {
        let string = |text: &str| varint_bytes(text.len() + 1) + text.len();
        4 + string(self.host) + 4 + self.rack.map_or(1, string) + 1
    }
}

/// Ends a response of a flexible version: the endpoints as tagged field 0 from version `from` on, unless there are none.
pub(crate) fn write_endpoints(writer: &mut Writer<'_>, endpoints: &[NodeEndpoint<'_>], written: bool) {
    if endpoints.is_empty() || !written {
        return writer.no_tagged_fields();
    }
    let content = varint_bytes(endpoints.len() + 1) + endpoints.iter().map(NodeEndpoint::bytes).sum::<usize>();
    writer.varint(1);
    writer.varint(0);
    writer.varint(content);
    let start = writer.position();
    writer.length(endpoints.len());
    for endpoint in endpoints {
        writer.i32(endpoint.node.value());
        writer.string(endpoint.host);
        writer.i32(i32::from(endpoint.port));
        writer.nullable_string(endpoint.rack);
        writer.no_tagged_fields();
    }
    debug_assert_eq!(writer.position() - start, content);
}
