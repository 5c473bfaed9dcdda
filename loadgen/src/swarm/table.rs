//! The result of a swarm as a table for people.
//!
//! The broker and the load generator are shown alike, column beside column. Nothing here is meant to be parsed.

use super::summary::{Swarm, SwarmCost, SwarmFile};
use crate::figures;
use crate::table;

/// What a run is worth, its connections and requests, what they cost, and the latencies.
pub fn result(file: &SwarmFile) -> String {
    let outcome = &file.file.result;
    format!("{}{}\n{}\n{}", table::state(outcome), facts(file), costs(&file.swarm), table::with_note(outcome))
}

fn facts(file: &SwarmFile) -> String {
    let (outcome, swarm) = (&file.file.result, &file.swarm);
    let mut table = table::table();
    let mut fact = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    fact("state", outcome.state.name().to_owned());
    let [made, failed, lost] = [swarm.opened, swarm.failed, swarm.broken].map(figures::count);
    fact("connections", format!("{made} of {} made, {failed} failed, {lost} lost", figures::count(swarm.connections)));
    let target = swarm.connect_rate_target.map_or("as fast as they are answered".to_owned(), |rate| {
        format!("{} asked for", figures::records_per_second(rate))
    });
    fact("connecting", format!("{} ({target})", figures::records_per_second(swarm.connect_rate)));
    if let Some(target) = outcome.rate_target {
        let (rate, target) = (outcome.rate_in, target);
        let part = figures::percent(rate / target);
        let (rate, target) = (figures::records_per_second(rate), figures::records_per_second(target));
        fact("requests", format!("{}: {rate} ({part} of {target}), {:.1} s", swarm.request, outcome.seconds));
    }
    fact("errors", figures::count(outcome.errors));
    table.to_string()
}

type Figure = (&'static str, fn(&SwarmCost) -> Option<String>);

const FIGURES: [Figure; 10] = [
    ("memory before", |cost| Some(figures::bytes(cost.rss_before))),
    ("with all connections", |cost| Some(figures::bytes(cost.rss_connected))),
    ("under requests", |cost| cost.rss_loaded.map(figures::bytes)),
    ("a second after", |cost| Some(figures::bytes(cost.rss_after))),
    ("bytes per connection", |cost| Some(figures::significant(cost.bytes_per_connection))),
    ("the same under requests", |cost| cost.bytes_per_connection_loaded.map(figures::significant)),
    ("CPU per connecting, µs", |cost| Some(figures::significant(cost.cpu_us_per_connect))),
    ("cores while idle", |cost| cost.cpu_idle.map(figures::significant)),
    ("cores under requests", |cost| cost.cpu_loaded.map(figures::significant)),
    ("CPU per request, µs", |cost| cost.cpu_us_per_request.map(figures::significant)),
];

fn costs(swarm: &Swarm) -> String {
    let mut table = table::table();
    let processes: Vec<&SwarmCost> = swarm.broker.iter().chain([&swarm.own]).collect();
    let heads = swarm.broker.iter().map(|_| "broker").chain(["loadgen"]);
    table.set_header(["cost"].into_iter().chain(heads));
    for (name, figure) in FIGURES {
        let cells: Vec<Option<String>> = processes.iter().map(|cost| figure(cost)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            table.add_row([name.to_owned()].into_iter().chain(cells));
        }
    }
    table.to_string()
}
