//! Signals: a broker that is asked to end answers what has arrived, and one that is asked twice ends at once.
//!
//! Nothing that was acknowledged before or while it ended is lost; a clean end leaves nothing to recover.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use corelane::types::ErrorCode;

use super::clients::wire::{Client, FETCH_BY_NAME, PRODUCE_BY_NAME, batch, code, fetch_request, produce_request};
use super::support::{Broker, BrokerOptions, Scratch, now};
use super::{append_until_refused, assert_readable, start, value};

const SIGTERM: i32 = 15;

#[test]
fn a_drained_broker_has_answered_what_was_in_flight_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new("drained");
        let options = BrokerOptions::new(&scratch.path().join("data"));
        let broker = start(&options);
        let mut client = Client::connect(broker.address());
        client.create_topic("drained", 1, &[]);
        // All in one segment of the socket, so that with the first answer all have arrived.
        let mut frames = Vec::new();
        let mut sent = Vec::new();
        for number in 0..16 {
            let (frame, waiting) =
                client.encode(PRODUCE_BY_NAME, &produce_request("drained", 0, &batch(&[&value(number, 20)]), -1));
            frames.extend_from_slice(&frame);
            sent.push(waiting);
        }
        let mut parked = Client::connect(broker.address());
        let waiting = fetch_request(&[("drained", 0, 0, 1 << 20)]).with_max_wait_ms(60_000).with_min_bytes(1 << 20);
        parked.send(FETCH_BY_NAME, &waiting);
        client.send_bytes(&frames);
        let mut sent = sent.into_iter();
        let mut answered = |client: &mut Client, offset| {
            let answer =
                client.receive(sent.next().expect("one for each")).responses.remove(0).partition_responses.remove(0);
            assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, offset));
        };
        answered(&mut client, 0);
        let begin = now();
        broker.signal(signal);
        (1..16).for_each(|offset| answered(&mut client, offset));
        client.assert_closed();
        // A fetch that waits for more does not hold the end up; whether it is answered or cut short is the broker's.
        let ended = broker.wait(Duration::from_secs(25));
        assert_eq!(ended.code(), Some(0), "{ended}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{ended}");
        drop(parked);
        let broker = start(&options);
        assert_eq!(broker.ready().recovered, 0, "a clean end leaves nothing to recover");
        assert_readable(&mut Client::connect(broker.address()), "drained", 0, 16, 20);
    }
}

/// A client that asks for megabytes and does not take them: the broker owes it an answer that it cannot get rid of.
fn stubborn_client(broker: &Broker) -> Client {
    let mut client = Client::connect(broker.address());
    client.create_topic("owed", 1, &[]);
    assert_eq!(append_until_refused(&mut client, "owed", 0, 40, 500_000).0, 40);
    for _ in 0..3 {
        client.send(FETCH_BY_NAME, &fetch_request(&[("owed", 0, 0, 64 << 20)]));
    }
    client
}

#[test]
fn a_second_sigterm_ends_a_broker_that_cannot_drain() {
    let scratch = Scratch::new("second-signal");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let mut broker = start(&options);
    let stubborn = stubborn_client(&broker);
    broker.signal("TERM");
    std::thread::sleep(Duration::from_secs(2));
    assert!(broker.is_running(), "it waits for the client, up to shutdown.timeout.ms\n{}", broker.stderr());
    broker.signal("TERM");
    let ended = broker.wait(Duration::from_secs(5));
    assert!(!ended.timed_out && ended.status.signal() == Some(SIGTERM), "{ended}");
    drop(stubborn);
    let broker = start(&options);
    assert_readable(&mut Client::connect(broker.address()), "owed", 0, 40, 500_000);
}

#[test]
fn a_client_that_takes_nothing_holds_the_end_up_for_the_timeout_only() {
    let scratch = Scratch::new("shutdown-timeout");
    let options = BrokerOptions::new(&scratch.path().join("data")).set("shutdown.timeout.ms", "1000");
    let broker = start(&options);
    let stubborn = stubborn_client(&broker);
    broker.signal("TERM");
    let ended = broker.wait(Duration::from_secs(15));
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(ended.stderr.contains("shutdown.timeout.ms"), "{ended}");
    drop(stubborn);
    let broker = start(&options);
    assert_eq!(broker.ready().recovered, 0, "the logs were closed clean all the same");
    assert_readable(&mut Client::connect(broker.address()), "owed", 0, 40, 500_000);
}
