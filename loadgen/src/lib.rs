//! The load generator: it talks the Kafka protocol to any broker, measures what comes back, and proves that nothing was lost.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line, exit codes, the result line |
//! | [`commands`] | what each subcommand does |
//! | [`client`] | a Kafka client of our own: pipelined connections, the few control calls |
//! | [`load`] | the load itself: producers, consumers, what they measure |
//! | [`swarm`] | many connections, and what they cost |
//! | [`verify`] | no loss, duplication, reordering, corruption: the writing half and the reading half |
//! | [`history`] | the checker: journals against logs, anomalies by name |
//! | [`journal`] | what became of every batch of a run, as lines, and as a file |
//! | [`stamp`] | the head of every record's value |
//! | [`synthetic`] | a broker in memory that breaks its promises on demand |
//! | [`verdict`] | what an answer says about a batch |
//! | [`result`] | the result of a run as it is kept |
//! | [`metric`], [`figures`] | the figures of a result by name, and as people read them |
//! | [`table`], [`report`], [`export`] | results as tables, as a page, and in the forms of other tools |
//! | [`sweep`] | the search for the highest rate that meets an SLO |
//! | [`doctor`], [`machine`], [`hiccup`] | what the machine is, whether it is fit to measure on, what it adds to latencies |
//! | [`replay`] | workload files of the OpenMessaging Benchmark |
//! | [`compare`], [`gate`] | results against each other; against an SLO and a baseline |
//!
//! Library and binary: the tests of the broker use the parts. It runs on `corelane::runtime` and knows of a broker only what
//! the protocol tells, so that the same binary measures every Kafka-compatible one.

pub mod cli;
pub mod client;
pub mod commands;
pub mod compare;
pub mod doctor;
pub mod export;
pub mod figures;
pub mod gate;
pub mod hiccup;
pub mod history;
pub mod journal;
pub mod load;
pub mod machine;
pub mod metric;
pub mod replay;
pub mod report;
pub mod result;
pub mod stamp;
pub mod swarm;
pub mod sweep;
pub mod synthetic;
pub mod table;
pub mod verdict;
pub mod verify;
