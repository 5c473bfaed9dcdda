//! From shards that run to a broker that serves, and back to a clean stop. The first shard leads, the others follow.
//!
//! Start: the data directory is locked and checked, the metadata log replayed, the broker registered; every shard is told what
//! it owns and opens that; the listeners were bound before, and accept now; only then the ready line. Stop: no new
//! connections, every request that has arrived is answered, every log is closed clean, and the other shards leave.
//!
//! Invariant: a shard answers the others from its beginning to its end, so that no request of a connection waits for a shard
//! that has gone.

use std::rc::Rc;

use tracing::{error, info, warn};

use super::first::First;
use super::listeners::{BoundListener, ListenerId};
use super::mail::{self, Answer, Ask, Post};
use super::owners::Owners;
use super::shard::{FIRST, Parts, Setup, Shard};
use super::{Broker, DataDirectory, Phase, Ready, StartError, accept, configs, topics, upkeep};
use crate::controller::{self, RegisterBroker};
use crate::partition::storage_options;
use crate::quorum::{ProposeError, Quorum, Start};
use crate::runtime::mailbox::{Inbox, Incoming};
use crate::runtime::{Class, Duration, Instant, Listener, random_u128, spawn, terminated, timeout};
use crate::storage::Storage;
use crate::types::{BrokerId, Incarnation, ShardId};

/// How long a shard may take to answer that it has begun, which is no work.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn run(broker: Broker, id: ShardId, ready: impl FnOnce(&Ready)) -> Result<(), StartError> {
    broker.status.add_this_shard(id);
    let joined = broker.mesh.join(id).map_err(|source| StartError::Mailbox { shard: id, source })?;
    let (post, inbox) = joined;
    if id != FIRST {
        follow(&broker, post, inbox).await;
        return Ok(());
    }
    let outcome = lead(&broker, post.clone(), inbox, ready).await;
    for other in others(&broker) {
        // One that has left already need not be told.
        let _ = post.send(other, Ask::End).await;
    }
    outcome
}

fn others(broker: &Broker) -> impl Iterator<Item = ShardId> {
    (FIRST.0 + 1..broker.shards()).map(ShardId)
}

/// A shard other than the first: begins when it is told to, and serves until it is told to end.
async fn follow(broker: &Broker, post: Post, mut inbox: Inbox<Ask, Answer>) {
    let mut batch = Vec::new();
    inbox.receive(&mut batch).await;
    // The first shard sends nothing else before this is answered, and the others do not know this one yet.
    let Some(Incoming { request: Ask::Begin(setup), reply }) = batch.pop() else { return };
    let shard = make(broker, post, None, *setup);
    configs::apply(&shard).await;
    reply.send(Answer::Done);
    spawn(Class::Produce, mail::serve(shard.clone(), inbox));
    shard.ended.notified().await;
}

fn make(broker: &Broker, post: Post, first: Option<First>, setup: Setup) -> Rc<Shard> {
    Shard::new(Parts {
        config: broker.config.clone(),
        storage: Storage::new(storage_options(&broker.config)),
        post,
        admissions: broker.admissions.clone(),
        first,
        setup,
    })
}

/// The first shard: starts the broker, and stops it when the process is asked to end.
async fn lead(
    broker: &Broker,
    post: Post,
    inbox: Inbox<Ask, Answer>,
    ready: impl FnOnce(&Ready),
) -> Result<(), StartError> {
    let begun = Instant::now();
    let config = &broker.config;
    let (data, lock) = DataDirectory::open(&config.data_dir, config.node_id).await?;
    let start = if data.is_new() { Start::New } else { Start::Existing };
    let (quorum, loaded) = Quorum::open(&data.metadata(), start).await?;
    info!(records = loaded.records, torn_bytes = loaded.torn_bytes, "metadata loaded");
    if data.is_new() {
        data.keep_identity().await?;
    }
    let mut listeners = Vec::with_capacity(broker.plans.len());
    for plan in broker.plans.iter() {
        listeners.push(plan.bind().await?);
    }
    register(&quorum, config.node_id, &listeners).await?;
    let listening = listeners.iter().flat_map(|listener| &listener.sockets).map(Listener::local_address).collect();
    let image = quorum.image();
    let mut owners = Owners::new(broker.shards());
    for topic in image.topics() {
        owners.place(topic.id, topic.partitions.len());
    }
    let endpoints = listeners.iter().map(|listener| listener.advertised.clone()).collect();
    let setup = Setup { data, endpoints, image, owners };
    for other in others(broker) {
        let pending = post.send(other, Ask::Begin(Box::new(setup.clone()))).await;
        let begun = match pending {
            Ok(pending) => timeout(BEGIN_WITHIN, pending).await.ok().flatten(),
            Err(_) => None,
        };
        begun.ok_or(StartError::Silent(other))?;
    }
    let shard = make(broker, post, Some(First::new(quorum, lock)), setup);
    configs::apply(&shard).await;
    spawn(Class::Produce, mail::serve(shard.clone(), inbox));
    let opened = topics::open_all(&shard).await?;
    if opened.failed > 0 {
        error!(offline = opened.failed, "partitions are offline; the lines above say why");
    }
    shard.call_all(|shard| async move { upkeep::start(&shard) }).await;
    for (index, listener) in listeners.into_iter().enumerate() {
        for socket in listener.sockets {
            spawn(Class::Produce, accept::accept(shard.clone(), socket, ListenerId(index)));
        }
    }
    let frame_bytes_max = shard.budgets().requests.frame_bytes_max();
    info!(frame_bytes_max, shards = broker.shards(), "serving");
    broker.status.enter(Phase::Serving);
    // Who reads the ready line may send the signal at once.
    let terminated = terminated();
    ready(&Ready {
        node: shard.node(),
        cluster: shard.cluster(),
        shards: broker.shards(),
        listening,
        partitions: opened.partitions,
        recovered: opened.recovered,
        elapsed: Instant::now().since(begun),
    });
    terminated.await;
    broker.status.enter(Phase::Draining);
    stop(&shard).await;
    Ok(())
}

async fn register(quorum: &Quorum, node: BrokerId, listeners: &[BoundListener]) -> Result<(), ProposeError> {
    let told = listeners.iter().map(|listener| controller::Listener {
        name: "PLAINTEXT".to_string(),
        host: listener.advertised.host.clone(),
        port: listener.advertised.port,
    });
    let request = RegisterBroker {
        broker: node,
        incarnation: Incarnation::from_random(random_u128()),
        listeners: told.collect(),
        clean_shutdown: None,
    };
    quorum.propose_with(move |controller| controller.register_broker(&request)).await.map(drop)
}

/// Answers what has arrived on every shard, then closes every log clean.
async fn stop(shard: &Rc<Shard>) {
    info!("stopping");
    shard.call_all(drain).await;
    shard.call_all(close).await;
    if let Err(error) = shard.first().quorum.close().await {
        error!(%error, "the metadata log is not closed clean");
    }
}

async fn drain(shard: Rc<Shard>) {
    if timeout(shard.config().shutdown_timeout, shard.drain()).await.is_err() {
        warn!(connections = shard.connections_len(), "shutdown.timeout.ms is over; connections are cut");
    }
    upkeep::stop(&shard);
}

async fn close(shard: Rc<Shard>) {
    for partition in shard.partitions() {
        if let Err(error) = partition.log().clone().close().await {
            let (topic, index) = (partition.topic(), partition.id().partition);
            error!(%topic, partition = %index, %error, "the log is not closed clean");
        }
    }
}
