//! What a fetch reads and what its answer holds, the same whether it belongs to a session or not.
//!
//! Without a session both are the request's own topics, gone through where they lie in the frame. With one, the partitions
//! come in the session's order, where topics may alternate: neighbours of one topic form a topic of the answer, so that a
//! topic may come more than once, as with Kafka.
//!
//! What this file does not do: it decides nothing. Which partitions are included was settled by the session.
//!
//! Source: KIP-227; `FetchResponse.toMessage` of Kafka (grouping).

use std::ops::Range;

use super::session::{Included, Session, SessionPartitions};
use crate::broker::shard::topic_id;
use crate::controller::ClusterImage;
use crate::types::{ErrorCode, TopicId};
use crate::wire::fetch::{FetchPartition, FetchSessionId, FetchTopic};
use crate::wire::{List, TopicKey};

/// The partitions to read.
pub(super) enum Wanted<'a> {
    Request(RequestPartitions<'a>),
    Session(SessionPartitions<'a>),
}

impl Iterator for Wanted<'_> {
    type Item = (Result<TopicId, ErrorCode>, FetchPartition);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Wanted::Request(partitions) => partitions.next(),
            Wanted::Session(partitions) => partitions.next(),
        }
    }
}

/// The partitions of a request in the client's order. A topic is looked up once for all of its partitions.
pub(super) struct RequestPartitions<'a> {
    topics: List<'a, FetchTopic<'a>>,
    image: &'a ClusterImage,
    topic: Result<TopicId, ErrorCode>,
    partitions: Option<List<'a, FetchPartition>>,
}

impl<'a> RequestPartitions<'a> {
    pub(super) fn new(topics: List<'a, FetchTopic<'a>>, image: &'a ClusterImage) -> RequestPartitions<'a> {
        RequestPartitions { topics, image, topic: Err(ErrorCode::UnknownTopicOrPartition), partitions: None }
    }
}

impl Iterator for RequestPartitions<'_> {
    type Item = (Result<TopicId, ErrorCode>, FetchPartition);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(partition) = self.partitions.as_mut().and_then(Iterator::next) {
                return Some((self.topic, partition));
            }
            let topic = self.topics.next()?;
            self.topic = topic_id(self.image, topic.topic);
            self.partitions = Some(topic.partitions);
        }
    }
}

/// What the answer to a fetch holds.
pub(in crate::broker) struct Answer<'a> {
    session: Option<FetchSessionId>,
    topics: Topics<'a>,
}

#[derive(Clone, Copy)]
enum Topics<'a> {
    Request(List<'a, FetchTopic<'a>>),
    Session(&'a Session, &'a [Included]),
}

/// A topic of an answer.
pub(in crate::broker) struct AnswerTopic<'a> {
    /// The topic as the client names it.
    pub(in crate::broker) key: TopicKey<'a>,
    /// Its partitions, as positions among all that were read, ascending through the whole answer.
    pub(in crate::broker) reads: Reads<'a>,
}

impl<'a> Answer<'a> {
    /// All partitions of the request.
    pub(super) fn full(session: Option<FetchSessionId>, topics: List<'a, FetchTopic<'a>>) -> Answer<'a> {
        Answer { session, topics: Topics::Request(topics) }
    }

    /// Those of the session that are `included`.
    pub(super) fn incremental(session: &'a Session, included: &'a [Included]) -> Answer<'a> {
        Answer { session: Some(session.id()), topics: Topics::Session(session, included) }
    }

    /// The session that the answer names.
    pub(in crate::broker) fn session(&self) -> Option<FetchSessionId> {
        self.session
    }

    /// How many topics there are.
    pub(in crate::broker) fn topics_len(&self) -> usize {
        match self.topics {
            Topics::Request(topics) => topics.len(),
            Topics::Session(_, included) => included.chunk_by(is_same_topic).count(),
        }
    }

    /// The topics in order.
    pub(in crate::broker) fn topics(&self) -> impl Iterator<Item = AnswerTopic<'a>> + 'a {
        AnswerTopics { left: self.topics, position: 0 }
    }
}

fn is_same_topic(one: &Included, other: &Included) -> bool {
    one.topic == other.topic
}

struct AnswerTopics<'a> {
    left: Topics<'a>,
    /// Of the next partition among those that were read.
    position: usize,
}

impl<'a> Iterator for AnswerTopics<'a> {
    type Item = AnswerTopic<'a>;

    fn next(&mut self) -> Option<AnswerTopic<'a>> {
        match &mut self.left {
            Topics::Request(topics) => {
                let topic = topics.next()?;
                let begin = self.position;
                self.position += topic.partitions.len();
                Some(AnswerTopic { key: topic.topic, reads: Reads::All(begin..self.position) })
            }
            Topics::Session(session, included) => {
                let together = included.chunk_by(is_same_topic).next()?;
                *included = &included[together.len()..];
                Some(AnswerTopic { key: session.key(together[0].topic), reads: Reads::Listed(together) })
            }
        }
    }
}

/// Positions of partitions among those that were read.
pub(in crate::broker) enum Reads<'a> {
    All(Range<usize>),
    Listed(&'a [Included]),
}

impl Iterator for Reads<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Reads::All(range) => range.next(),
            Reads::Listed(included) => {
                let (first, rest) = included.split_first()?;
                *included = rest;
                Some(first.read as usize)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match self {
            Reads::All(range) => range.len(),
            Reads::Listed(included) => included.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for Reads<'_> {}
