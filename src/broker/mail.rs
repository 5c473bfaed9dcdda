//! What the shards of a broker ask each other, and how a shard asks.
//!
//! Produce and Fetch have messages of their own: one for each shard that owns a part of a request, with one reply. Everything
//! else is a job, a closure that runs on the other shard: [`Shard::call`] for one shard, [`Shard::gather`] for many partitions
//! wherever they are.
//!
//! **No deadlock**: only jobs for the first shard wait for jobs of others, and those wait for no shard. A shard that has left
//! the mesh answers nothing; that happens when all of them end, so whoever asks it then waits for its own end.
//!
//! What this file does not do: it looks into no message.

use std::any::Any;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::admissions::Admission;
use super::fetch::FetchAsk;
use super::fetch::read::Read;
use super::listeners::ListenerId;
use super::produce::{ProduceAsk, Produced};
use super::shard::{Setup, Shard};
use super::{configs, connection, fetch, produce};
use crate::controller::ClusterImage;
use crate::runtime::mailbox::{Inbox, Incoming, Left, Mesh, Pending, Reply};
use crate::runtime::{Class, DetachedStream, spawn, yield_now};
use crate::types::{ErrorCode, ShardId, TopicId, TopicPartition};

/// Requests of one shard to another that may be under way: those of 256 connections that each owe as many answers as they may,
/// so that partitions whose disk hangs do not hold up the others. A slot costs what its reply does.
const WINDOW: u32 = 65_536;

/// Partitions that are looked at before the other work of a shard gets its turn: some ten microseconds.
const SLICE: usize = 64;

/// Something that runs on another shard.
pub(super) type Job = Box<dyn FnOnce(Rc<Shard>) -> JobRun + Send>;
type JobRun = Pin<Box<dyn Future<Output = Box<dyn Any + Send>>>>;

/// What a shard is asked.
pub(super) enum Ask {
    /// The first message to a shard.
    Begin(Box<Setup>),
    /// The last one.
    End,
    Produce(ProduceAsk),
    Fetch(FetchAsk),
    /// The fetch of this ticket is to be answered with what there is.
    Hurry(u64),
    View(View),
    Connection {
        stream: DetachedStream,
        listener: ListenerId,
        admission: Admission,
    },
    Job(Job),
}

/// What it answers.
pub(super) enum Answer {
    Done,
    Produced(Vec<Produced>),
    Fetched(Vec<Read>),
    Job(Box<dyn Any + Send>),
}

/// The cluster as a shard is to know it from now on.
#[derive(Clone)]
pub(super) struct View {
    pub(super) image: Arc<ClusterImage>,
    /// New topics, with the shard of their first partition.
    pub(super) placed: Arc<Vec<(TopicId, ShardId)>>,
}

pub(super) type BrokerMesh = Mesh<Ask, Answer>;
pub(super) type Post = crate::runtime::mailbox::Post<Ask, Answer>;
pub(super) type PendingAnswer = Pending<Ask, Answer>;
pub(super) type AnswerTo = Reply<Ask, Answer>;

/// The mailboxes of a broker.
pub(super) fn mesh(shards: u16) -> BrokerMesh {
    Mesh::with_window(shards, WINDOW)
}

/// Answers the other shards until the inbox is closed.
pub(super) async fn serve(shard: Rc<Shard>, mut inbox: Inbox<Ask, Answer>) {
    let mut batch = Vec::new();
    while inbox.receive(&mut batch).await > 0 {
        for Incoming { request, reply } in batch.drain(..) {
            take(&shard, request, reply);
        }
    }
}

fn take(shard: &Rc<Shard>, ask: Ask, reply: AnswerTo) {
    match ask {
        Ask::Begin(_) => unreachable!("a shard begins once"),
        Ask::End => shard.ended.notify(),
        Ask::Produce(ask) => produce::lanes::enter(shard, ask, reply),
        Ask::Fetch(ask) => fetch::across::enter(shard, ask, reply),
        Ask::Hurry(ticket) => {
            shard.asked_fetches.hurry(reply.to(), ticket);
            reply.send(Answer::Done);
        }
        Ask::View(view) => {
            let shard = shard.clone();
            shard.see(&view);
            spawn(Class::Produce, async move {
                configs::apply(&shard).await;
                reply.send(Answer::Done);
            });
        }
        Ask::Connection { stream, listener, admission } => {
            connection::start(shard, stream.attach(), listener, admission);
            reply.send(Answer::Done);
        }
        Ask::Job(job) => {
            let run = job(shard.clone());
            spawn(Class::Produce, async move { reply.send(Answer::Job(run.await)) });
        }
    }
}

impl Shard {
    /// Sends `ask`; its answer comes later.
    pub(super) async fn ask(&self, to: ShardId, ask: Ask) -> PendingAnswer {
        self.metrics.cross_shard_requests.add(1);
        match self.post.send(to, ask).await {
            Ok(pending) => pending,
            Err(Left(_)) => pending().await,
        }
    }

    /// Runs `job` on the shard `on`, which may be this one.
    pub(super) async fn call<T, F, Fut>(self: &Rc<Self>, on: ShardId, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if on == self.id() {
            return job(self.clone()).await;
        }
        result(self.start_call(on, job).await).await
    }

    async fn start_call<T, F, Fut>(&self, on: ShardId, job: F) -> PendingAnswer
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let job: Job = Box::new(move |shard| {
            let run = job(shard);
            Box::pin(async move { Box::new(run.await) as Box<dyn Any + Send> })
        });
        self.ask(on, Ask::Job(job)).await
    }

    /// Runs `job` on every shard, this one included, at the same time; gives the results in the order of the shards.
    pub(super) async fn call_all<T, F, Fut>(self: &Rc<Self>, job: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(Rc<Shard>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let mut started = Vec::new();
        for number in 0..self.shards() {
            let on = ShardId(number);
            started.push(if on == self.id() { None } else { Some(self.start_call(on, job.clone()).await) });
        }
        let mut own = Some(job(self.clone()).await);
        let mut results = Vec::with_capacity(started.len());
        for pending in started {
            results.push(match pending {
                Some(pending) => result(pending).await,
                None => own.take().expect("one of the shards is this one"),
            });
        }
        results
    }

    /// Runs `each` for every partition of `wanted` on the shard that owns it; the results are in the order of `wanted`. One
    /// message for each shard that owns any; what is refused already, or has no owner, stays an error.
    pub(super) async fn gather<X, T, F, Fut>(
        self: &Rc<Self>,
        wanted: Vec<(Result<TopicPartition, ErrorCode>, X)>,
        each: F,
    ) -> Vec<Result<T, ErrorCode>>
    where
        X: Send + 'static,
        T: Send + 'static,
        F: Fn(Rc<Shard>, TopicPartition, X) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, ErrorCode>> + 'static,
    {
        let mut results: Vec<Option<Result<T, ErrorCode>>> = Vec::new();
        let mut parts: Vec<Vec<(usize, TopicPartition, X)>> = (0..self.shards()).map(|_| Vec::new()).collect();
        for (place, (at, asked)) in wanted.into_iter().enumerate() {
            results.push(None);
            match at.and_then(|at| Ok((at, self.owner(at)?))) {
                Ok((at, owner)) => parts[usize::from(owner.0)].push((place, at, asked)),
                Err(code) => results[place] = Some(Err(code)),
            }
        }
        let run = move |part: Vec<(usize, TopicPartition, X)>, each: F| {
            move |shard: Rc<Shard>| async move {
                let mut done = Vec::with_capacity(part.len());
                for (place, at, asked) in part {
                    done.push((place, each(shard.clone(), at, asked).await));
                    if done.len() % SLICE == 0 {
                        yield_now().await;
                    }
                }
                done
            }
        };
        let own = std::mem::take(&mut parts[usize::from(self.id().0)]);
        let mut started = Vec::new();
        for (number, part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            let on = ShardId(u16::try_from(number).expect("one of the shards"));
            started.push(self.start_call(on, run(part, each.clone())).await);
        }
        let mut done = run(own, each)(self.clone()).await;
        for pending in started {
            done.extend(result::<Vec<(usize, Result<T, ErrorCode>)>>(pending).await);
        }
        for (place, result) in done {
            results[place] = Some(result);
        }
        results.into_iter().map(|result| result.expect("every partition is refused or has an owner")).collect()
    }
}

/// The answer to `pending`; never, if the other shard has left.
pub(super) async fn answer_of(pending: PendingAnswer) -> Answer {
    match pending.await {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

async fn result<T: 'static>(pending: PendingAnswer) -> T {
    match answer_of(pending).await {
        Answer::Job(result) => *result.downcast().expect("the result that the job was made to give"),
        _ => unreachable!("a job is answered with its result"),
    }
}
