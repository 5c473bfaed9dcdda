//! Metrics and health over HTTP, of a real broker: every metric is there in a form that a strict reader takes, numbers follow
//! what clients do, readiness follows the broker's life, and no connection holds others up.
//!
//! HTTP is spoken by hand, a request a connection, since what is sent must also be what no library would send. The reader
//! of the text is the tests' own and knows nothing of the writer: it follows Prometheus' description of the format.

mod clients;
mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clients::librdkafka::{self as client, Record, create_topic, produce, producer_config, read};
use clients::wire::{Client, FETCH_BY_NAME, PRODUCE_BY_NAME, batch, code, fetch_request, produce_request};
use clients::{SOON, eventually, noise};
use corelane::metrics::{CATALOGUE, Kind, Recording, render};
use corelane::types::{ErrorCode, ShardId};
use rdkafka::Offset;
use support::{Broker, BrokerOptions, Scratch, fixed_port, now};

const ANY_PORT: &str = "127.0.0.1:0";

/// The answer to a request.
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, SOON).expect("it accepts");
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    stream
}

/// Sends `request` as it is and reads until the other side ends the connection.
fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer, and the end");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("a status line");
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer {
        status: status[..3].parse().expect("a number"),
        headers: lines.map(|line| header(line).expect("a header")).collect(),
        body: body.to_owned(),
    }
}

fn get(address: SocketAddr, path: &str) -> Answer {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn status_and_body(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = get(address, path);
    (answer.status, answer.body)
}

fn start(scratch: &Scratch) -> Broker {
    let options = BrokerOptions::new(&scratch.path().join("data")).admin(ANY_PORT);
    options.start().unwrap_or_else(|ended| panic!("{ended}"))
}

fn admin_of(broker: &Broker) -> SocketAddr {
    broker.ready().admin.expect("the ready line has it")
}

/// Labels by name.
type Labels = BTreeMap<String, String>;

/// A metric of the text: its type, and the value of each sample by the suffix of its name and its labels.
#[derive(Default)]
struct Found {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

/// Reads the whole text, and refuses what Prometheus' description of it does not allow.
fn parse(text: &str) -> HashMap<String, Found> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut metrics: HashMap<String, Found> = HashMap::new();
    let (mut current, mut helped) = (String::new(), HashSet::new());
    let mut series = HashSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help text");
            assert!(!words.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind) && helped.contains(name), "{line}");
            let found = Found { kind: kind.to_owned(), samples: Vec::new() };
            assert!(metrics.insert(name.to_owned(), found).is_none(), "{name} stands together");
            name.clone_into(&mut current);
        } else {
            assert!(series.insert(line.rsplit_once(' ').expect("a value").0.to_owned()), "twice: {line}");
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} below {current}"));
            let found = metrics.get_mut(&current).expect("its type came first");
            let suffixes: &[&str] = if found.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line} below {current}");
            found.samples.push((suffix.to_owned(), labels, value));
        }
    }
    metrics
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty();
    let (name, rest) = line.split_once('{').expect("labels");
    let (labels, value) = rest.split_once("} ").expect("a value");
    assert!(is_name(name), "{line}");
    let mut found = Labels::new();
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').expect("a label");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
        assert!(is_name(name) && !value.contains(['"', '\\']), "{line}");
        assert!(found.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    (name.to_owned(), found, value.parse().expect("a number"))
}

/// A histogram's buckets grow up to its count, for each of its series.
fn assert_sound_histogram(name: &str, found: &Found) {
    let of = |suffix: &str, labels: &Labels| {
        let sample = found.samples.iter().find(|(other, found, _)| other == suffix && found == labels);
        sample.unwrap_or_else(|| panic!("{name}{suffix}{labels:?}")).2
    };
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (_, labels, count) in found.samples.iter().filter(|(suffix, ..)| suffix == "_bucket") {
        let mut labels = labels.clone();
        let bound = labels.remove("le").expect("a bound");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
        buckets.entry(labels).or_default().push((bound, *count));
    }
    for (labels, buckets) in buckets {
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        assert!(grows && buckets.len() > 20, "{name}: {buckets:?}");
        assert_eq!(buckets.last().copied(), Some((f64::INFINITY, of("_count", &labels))), "{name}");
        assert!(of("_sum", &labels) >= 0.0);
    }
}

/// The metrics of a broker at one moment.
struct Scrape(HashMap<String, Found>);

impl Scrape {
    fn of(admin: SocketAddr) -> Scrape {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200);
        Scrape(parse(&answer.body))
    }

    /// The sum of the samples of a metric that have this suffix and label.
    fn sum(&self, name: &str, suffix: &str, label: Option<(&str, &str)>) -> f64 {
        let fits = |labels: &Labels| label.is_none_or(|(name, value)| labels.get(name).is_some_and(|v| v == value));
        let found = self.0.get(name).unwrap_or_else(|| panic!("{name} is there"));
        found.samples.iter().filter(|(other, labels, _)| other == suffix && fits(labels)).map(|sample| sample.2).sum()
    }

    fn value(&self, name: &str) -> f64 {
        self.sum(name, "", None)
    }

    /// Requests of an API.
    fn requests(&self, api: &str) -> f64 {
        self.sum("corelane_request_seconds", "_count", Some(("api", api)))
    }

    fn appends(&self) -> f64 {
        self.sum("corelane_append_seconds", "_count", None)
    }
}

#[test]
fn every_metric_of_the_catalogue_is_there() {
    let scratch = Scratch::new("admin-catalogue");
    let broker = start(&scratch);
    let answer = get(admin_of(&broker), "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string(), "one buffer");
    let found = parse(&answer.body);
    assert_eq!(found.len(), CATALOGUE.len());
    for metric in CATALOGUE {
        let Found { kind, samples } = &found[metric.name];
        assert_eq!(*kind, metric.kind.to_string(), "{}", metric.name);
        // Those of APIs come with their first request.
        assert!(!samples.is_empty() || metric.label == Some("api"), "{}", metric.name);
        assert!(samples.iter().all(|(_, labels, _)| labels.contains_key("shard")), "{}", metric.name);
        if metric.kind == Kind::Histogram {
            assert_sound_histogram(metric.name, &found[metric.name]);
        }
    }
}

#[test]
fn numbers_follow_each_request() {
    let scratch = Scratch::new("admin-numbers");
    let broker = start(&scratch);
    let admin = admin_of(&broker);
    let mut client = Client::connect(broker.address());
    client.create_topic("counted", 1, &[]);
    let sent = batch(&[&noise(1, 50_000), b"second"]);

    let before = Scrape::of(admin);
    assert_eq!((before.value("corelane_connections"), before.requests("Produce")), (1.0, 0.0));
    client.append("counted", 0, &sent);
    let produced = Scrape::of(admin);
    let grown = |name: &str| produced.value(name) - before.value(name);
    assert_eq!(grown("corelane_produce_bytes_total"), sent.len() as f64);
    assert_eq!((produced.requests("Produce"), produced.appends() - before.appends()), (1.0, 1.0));
    assert_eq!(grown("corelane_fetch_bytes_total"), 0.0);
    assert!(grown("corelane_device_written_bytes_total") >= sent.len() as f64);
    assert!(grown("corelane_commits_total") == 1.0 && grown("corelane_commit_bytes_total") >= sent.len() as f64);
    assert!(produced.value("corelane_memory_bytes") >= sent.len() as f64);
    assert!(produced.sum("corelane_append_seconds", "_sum", None) > 0.0);

    // No answer, and yet a request; the one behind it shows that it was taken.
    client.send(PRODUCE_BY_NAME, &produce_request("counted", 0, &sent, 0));
    client.append("counted", 0, &sent);
    let unacknowledged = Scrape::of(admin);
    assert_eq!((unacknowledged.requests("Produce"), unacknowledged.appends() - before.appends()), (3.0, 3.0));

    let fetched = client.fetch("counted", 0, 0).records.expect("records").len() as f64;
    let after = Scrape::of(admin);
    assert_eq!(after.value("corelane_fetch_bytes_total"), fetched);
    assert!(fetched >= 3.0 * sent.len() as f64 && after.requests("Fetch") == 1.0);
    assert!(after.value("corelane_send_bytes_total") - unacknowledged.value("corelane_send_bytes_total") > fetched);

    drop(client);
    eventually("the connection is not counted any more", || {
        (Scrape::of(admin).value("corelane_connections") == 0.0).then_some(())
    });
}

#[test]
fn numbers_follow_what_librdkafka_does() {
    let scratch = Scratch::new("admin-librdkafka");
    let broker = start(&scratch);
    let (admin, bootstrap) = (admin_of(&broker), broker.bootstrap());
    create_topic(&bootstrap, "table", 1, &[]);
    let records: Vec<Record> = (0..500).map(|number| Record::new(b"key", &noise(number, 200))).collect();
    let bytes = 500.0 * 203.0;
    for delivery in produce(producer_config(&bootstrap).set("acks", "all"), "table", 0, &records) {
        delivery.expect("delivered");
    }
    assert_eq!(read(&client::config(&bootstrap), "table", 0, Offset::Beginning).len(), records.len());
    let scrape = Scrape::of(admin);
    for name in ["produce_bytes_total", "fetch_bytes_total", "send_bytes_total", "device_written_bytes_total"] {
        assert!(scrape.value(&format!("corelane_{name}")) >= bytes, "{name}");
    }
    for api in ["ApiVersions", "Metadata", "CreateTopics", "Produce", "Fetch"] {
        assert!(scrape.requests(api) >= 1.0, "{api}");
    }
    for metric in CATALOGUE.iter().filter(|metric| metric.kind == Kind::Histogram) {
        assert_sound_histogram(metric.name, &scrape.0[metric.name]);
    }
    for name in ["corruptions_total", "write_failures_total", "log_failed"] {
        assert_eq!(scrape.value(&format!("corelane_{name}")), 0.0, "{name}");
    }
}

#[test]
fn readiness_ends_when_draining_begins_and_the_server_with_the_broker() {
    let scratch = Scratch::new("admin-drain");
    let broker = start(&scratch);
    let admin = admin_of(&broker);
    let mut client = Client::connect(broker.address());
    client.create_topic("long", 1, &[]);
    // More than the buffers of a socket hold on both sides.
    let large = batch(&[&noise(2, 1_000_000)]);
    for _ in 0..24 {
        client.append("long", 0, &large);
    }
    assert_eq!(status_and_body(admin, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(status_and_body(admin, "/healthz"), (200, "ok\n".to_owned()));

    // An answer that the client does not read keeps the broker from ending.
    let sent = client.send(FETCH_BY_NAME, &fetch_request(&[("long", 0, 0, 64 << 20)]));
    eventually("the answer is on its way", || (Scrape::of(admin).requests("Fetch") == 1.0).then_some(()));
    broker.signal("TERM");
    eventually("it drains", || (status_and_body(admin, "/readyz") == (503, "draining\n".to_owned())).then_some(()));
    assert_eq!(status_and_body(admin, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(Scrape::of(admin).value("corelane_connections"), 1.0);

    let answer = client.receive(sent);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let ended = broker.wait(SOON);
    assert_eq!(ended.code(), Some(0), "{ended}");
    let refused = TcpStream::connect_timeout(&admin, SOON).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_broker_that_starts_says_so() {
    let scratch = Scratch::new("admin-start");
    let holder = start(&scratch);
    // It waits for the data directory that the first one holds, and then gives up.
    let port = fixed_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let second = BrokerOptions::new(&scratch.path().join("data")).admin(&address.to_string()).spawn();
    eventually("it answers", || TcpStream::connect(address).ok());
    assert_eq!(status_and_body(address, "/readyz"), (503, "starting\n".to_owned()));
    assert_eq!(status_and_body(address, "/healthz"), (200, "ok\n".to_owned()));
    let ended = second.ready().map(|_| ()).expect_err("the directory is taken");
    assert_eq!(ended.code(), Some(2), "{ended}");
    drop(holder);
}

#[test]
fn an_address_that_cannot_be_bound_is_exit_code_3_and_none_is_no_server() {
    let scratch = Scratch::new("admin-bind");
    let first = start(&scratch);
    let taken = admin_of(&first).to_string();
    let other = BrokerOptions::new(&scratch.path().join("other"));
    let ended = other.clone().admin(&taken).start().map(|_| ()).expect_err("it is taken");
    assert_eq!(ended.code(), Some(3), "{ended}");
    assert!(ended.stderr.contains(&taken) && ended.stderr.contains("admin.listener"), "{ended}");
    let without = other.start().unwrap_or_else(|ended| panic!("{ended}"));
    assert_eq!(without.ready().admin, None);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let scratch = Scratch::new("admin-refused");
    let broker = start(&scratch);
    let admin = admin_of(&broker);
    assert_eq!(get(admin, "/").status, 404);
    assert_eq!(get(admin, "/metrics?x=1").status, 200, "a query is ignored");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = exchange(admin, &format!("{method} /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method}");
    }
    let head = exchange(admin, "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.headers["content-length"].as_str(), head.body.as_str()), (200, "3", ""));
}

/// Whether the other side has ended the connection, or does within `within`.
fn ends(mut stream: TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).expect("not zero");
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn connections_that_hold_still_keep_nobody_out() {
    let scratch = Scratch::new("admin-slow");
    let broker = start(&scratch);
    let admin = admin_of(&broker);
    let begun = now();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect(admin)).collect();
    for stream in &mut slow {
        // Those that were ended already may refuse it.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
    }
    for _ in 0..20 {
        assert_eq!(get(admin, "/healthz").status, 200);
    }
    assert!(now() - begun < Duration::from_secs(10), "nobody waited for a slow connection to be given up");
    assert!(ends(slow.remove(0), SOON), "the oldest make room");
    let newest = slow.pop().expect("some are left");
    assert!(!ends(newest.try_clone().expect("a descriptor"), Duration::from_millis(10)), "it has its time");
    assert!(ends(newest, SOON), "and no more");
}

#[test]
fn heads_without_end_are_cut_off() {
    let scratch = Scratch::new("admin-greedy");
    let broker = start(&scratch);
    let admin = admin_of(&broker);
    let large = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(500));
    for head in [large, many, "\r\n\r\nnonsense\r\n\r\n".to_owned(), "\0".repeat(100_000)] {
        let mut stream = connect(admin);
        // It may be refused before all of it was sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        let refused = answer.starts_with(b"HTTP/1.1 431 ") || answer.starts_with(b"HTTP/1.1 400 ");
        assert!(refused || answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(get(admin, "/metrics").status, 200);
}

#[test]
fn a_shard_that_writes_is_read_from_another_thread() {
    let shard = Recording::default();
    let reading = shard.reading();
    let rounds = 1000;
    let reader = std::thread::spawn(move || {
        let count = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("corelane_commits_total{")).expect("it is there");
            line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
        };
        let mut last = 0;
        while last < rounds {
            let now = count(&render(&[(ShardId(0), reading.clone())], |_| None));
            assert!(now >= last, "a counter went from {last} to {now}");
            last = now;
        }
    });
    for _ in 0..rounds {
        shard.commits.add(1);
        std::thread::yield_now();
    }
    reader.join().expect("it saw only growing numbers, up to the last one");
}
