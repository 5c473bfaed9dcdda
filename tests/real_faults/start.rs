//! What a broker does not start with: it ends with the exit code of its kind of cause, and with a line that helps.
//!
//! A refused start leaves everything as it was, and whoever holds the directory or the port serves on.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::clients::wire::{Client, batch};
use super::support::{BrokerOptions, DRAINED_WITHIN, READY_WITHIN, Scratch, fixed_port, now};
use super::{append_until_refused, assert_readable, skip, start};

/// User and group `nobody`.
const NOBODY: u32 = 65_534;

/// Demands that a start ends with `code` and a line that holds all of `words`.
#[track_caller]
fn assert_refused(options: &BrokerOptions, code: i32, words: &[&str]) {
    let ended = match options.start() {
        Err(ended) => ended,
        Ok(_) => panic!("a broker started that should not: {words:?}"),
    };
    assert_eq!(ended.code(), Some(code), "{ended}");
    let told = ended.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told, "no line with {words:?}: {ended}");
}

/// A process that is killed when its owner is gone.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a start under other limits or another user went.
enum Outcome {
    Ready,
    Ended {
        code: Option<i32>,
        stderr: String,
    },
    /// The binary cannot be executed by that user.
    NotExecutable,
}

/// Starts a broker with `kib` of locked memory, as `user` if given; it is killed once it is ready.
fn start_limited(data_dir: &Path, kib: u64, user: Option<u32>) -> Outcome {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(r#"ulimit -l {kib} && exec "$0" "$@""#)).arg(env!("CARGO_BIN_EXE_corelane"));
    command.arg("serve").arg("--data-dir").arg(data_dir).arg("--listen").arg("127.0.0.1:0");
    command.arg("--admin-listen").arg("none");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let Ok(child) = command.spawn() else { return Outcome::NotExecutable };
    let mut broker = Guarded(child);
    let mut line = String::new();
    let stdout = broker.0.stdout.take().expect("piped");
    let (sender, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let read = BufReader::new(stdout).read_line(&mut line);
        // The test may have given up.
        let _ = sender.send(read.is_ok() && line.starts_with("corelane ready "));
    });
    if ready.recv_timeout(READY_WITHIN).expect("a broker is ready or ends in time") {
        return Outcome::Ready;
    }
    let deadline = now() + DRAINED_WITHIN;
    let status = loop {
        match broker.0.try_wait().expect("a child") {
            Some(status) => break status,
            None => assert!(now() < deadline, "standard output is closed and the process is not gone"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut stderr = String::new();
    broker.0.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    // What sh says when it may not execute.
    if matches!(status.code(), Some(126 | 127)) {
        return Outcome::NotExecutable;
    }
    assert_eq!(status.signal(), None, "{stderr}");
    Outcome::Ended { code: status.code(), stderr }
}

fn is_root(scratch: &Scratch) -> bool {
    std::fs::metadata(scratch.path()).expect("it was just made").uid() == 0
}

#[test]
fn a_second_broker_on_the_same_directory_ends_with_2_and_names_the_first() {
    let scratch = Scratch::new("second-broker");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = start(&options);
    let pid = broker.pid().to_string();
    let path = options.data_dir().display().to_string();
    assert_refused(&options, 2, &[&pid, &path]);
    let mut client = Client::connect(broker.address());
    client.create_topic("kept", 1, &[]);
    assert_refused(&options, 2, &[&pid]);
    assert_eq!(client.append("kept", 0, &batch(&[b"served"])), 0, "the first one serves on");
    // A lock does not outlive its process, however that ended.
    broker.kill();
    let broker = start(&options);
    assert_ne!(broker.pid().to_string(), pid);
    assert_eq!(Client::connect(broker.address()).fetch("kept", 0, 0).high_watermark, 1);
}

#[test]
fn a_directory_that_cannot_be_written_ends_with_2() {
    let scratch = Scratch::new("unwritable");
    let file = scratch.path().join("file");
    std::fs::write(&file, "a file is no directory").expect("the scratch directory is writable");
    assert_refused(&BrokerOptions::new(&file.join("data")), 2, &[&file.display().to_string()]);
    assert_refused(&BrokerOptions::new(&file), 2, &[&file.display().to_string()]);
    let directory = scratch.path().join("read-only");
    std::fs::create_dir(&directory).expect("the scratch directory is writable");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o555)).expect("it is ours");
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    // Nothing stops root.
    let user = is_root(&scratch).then_some(NOBODY);
    for data_dir in [directory.clone(), directory.join("data")] {
        match start_limited(&data_dir, 8192, user) {
            Outcome::Ended { code, stderr } => {
                assert_eq!(code, Some(2), "{stderr}");
                assert!(stderr.contains(&directory.display().to_string()), "{stderr}");
            }
            Outcome::Ready => panic!("a broker started on {}", data_dir.display()),
            Outcome::NotExecutable => {
                return skip("a read-only directory", "another user cannot execute the broker's binary here");
            }
        }
    }
}

#[test]
fn a_signal_right_behind_the_ready_line_drains() {
    let scratch = Scratch::new("early-signal");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    for _ in 0..10 {
        let ended = start(&options).terminate();
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

#[test]
fn a_busy_port_ends_with_3() {
    let scratch = Scratch::new("busy-port");
    let port = fixed_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port was free");
    let address = format!("127.0.0.1:{port}");
    assert_refused(&BrokerOptions::new(&scratch.path().join("data")).port(port), 3, &[&address]);
    drop(listener);
    // Another broker's port is as busy: two of them never share one.
    let broker = start(&BrokerOptions::new(&scratch.path().join("first")).port(port));
    assert_refused(&BrokerOptions::new(&scratch.path().join("second")).port(port), 3, &[&address]);
    Client::connect(broker.address()).create_topic("served", 1, &[]);
    drop(broker);
    start(&BrokerOptions::new(&scratch.path().join("second")).port(port));
}

#[test]
fn unknown_keys_and_options_end_with_1_and_name_the_nearest() {
    let scratch = Scratch::new("unknown-key");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let with = |key: &str, value: &str| options.clone().set(key, value);
    assert_refused(&with("log.retention.bites", "1"), 1, &["log.retention.bites", "'log.retention.bytes'"]);
    assert_refused(&with("num.partition", "1"), 1, &["num.partition", "'num.partitions'"]);
    assert_refused(&with("num.io.threads", "8"), 1, &["num.io.threads"]);
    assert_refused(&with("retention.ms", "1000"), 1, &["retention.ms", "log.retention.ms"]);
    assert_refused(&with("num.partitions", "-3"), 1, &["num.partitions", "-3"]);
    assert_refused(&options.clone().argument("--frobnicate"), 1, &["--frobnicate"]);
    let file = scratch.path().join("corelane.toml");
    std::fs::write(&file, "[log.segment]\nbites = 1048576\n").expect("the scratch directory is writable");
    let file = file.display().to_string();
    let from_file = options.clone().argument("--config").argument(&file);
    assert_refused(&from_file, 1, &[&file, "log.segment.bites", "'log.segment.bytes'"]);
    assert!(!options.data_dir().exists(), "a refused configuration touches nothing");
}

#[test]
fn the_directory_of_another_node_or_a_newer_format_ends_with_2() {
    let scratch = Scratch::new("other-directory");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = start(&options);
    let mut client = Client::connect(broker.address());
    client.create_topic("kept", 1, &[]);
    assert_eq!(append_until_refused(&mut client, "kept", 0, 5, 100).0, 5);
    assert_eq!(broker.terminate().code(), Some(0));
    assert_refused(&options.clone().argument("--node-id").argument("7"), 2, &["node 1", "node 7"]);

    let identity = options.data_dir().join("corelane.toml");
    let text = std::fs::read_to_string(&identity).expect("it was written");
    assert!(text.contains("format = 1"), "{text}");
    let rewrite = |text: &str| std::fs::write(&identity, text).expect("it is ours");
    rewrite(&text.replace("format = 1", "format = 2"));
    assert_refused(&options, 2, &["format 2", "newer"]);
    rewrite("not an identity");
    assert_refused(&options, 2, &[&identity.display().to_string()]);
    std::fs::remove_file(&identity).expect("it is ours");
    assert_refused(&options, 2, &["corelane.toml"]);
    rewrite(&text);
    let broker = start(&options);
    assert_eq!(assert_readable(&mut Client::connect(broker.address()), "kept", 0, 5, 100), 5);
}

#[test]
fn too_little_locked_memory_ends_with_4_and_the_line_that_sets_it() {
    let scratch = Scratch::new("locked-memory");
    let data_dir = scratch.path().join("data");
    let mut kib = 64;
    // What the line says is enough. The memory is the user's: where brokers of other tests hold some of it, a second line
    // says how much it takes then, and never more than the 8 MiB that every machine grants.
    while let Outcome::Ended { code, stderr } = start_limited(&data_dir, kib, None) {
        assert_eq!(code, Some(4), "{stderr}");
        let named = stderr.split("`ulimit -l ").nth(1).and_then(|rest| rest.split('`').next());
        let named: u64 = named.and_then(|kib| kib.parse().ok()).unwrap_or_else(|| panic!("no line to run: {stderr}"));
        assert!((kib + 1..=8192).contains(&named), "{kib} KiB are not enough: {stderr}");
        kib = named;
    }
    assert!(kib > 64, "a broker started with 64 KiB of locked memory");
}

#[test]
fn an_ordinary_user_with_8_mib_of_locked_memory_gets_a_broker() {
    let scratch = Scratch::new("ordinary-user");
    let data_dir = scratch.path().join("data");
    std::fs::create_dir(&data_dir).expect("the scratch directory is writable");
    // Whoever is no root already is the ordinary user.
    let user = is_root(&scratch).then_some(NOBODY);
    if let Some(user) = user {
        chown(&data_dir, Some(user), Some(user)).expect("root may");
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    match start_limited(&data_dir, 8192, user) {
        Outcome::Ready => {}
        Outcome::Ended { code, stderr } => {
            // The limit is the user's, not the process's: brokers of other tests may have used it up. Then it says so.
            assert!(code == Some(4) && stderr.contains("`ulimit -l "), "exit {code:?}: {stderr}");
        }
        Outcome::NotExecutable => skip("an ordinary user", "another user cannot execute the broker's binary here"),
    }
}
