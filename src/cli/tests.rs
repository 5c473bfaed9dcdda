//! Tests of the command line: what is accepted, what is refused, and which source wins.
//!
//! The example file of `scripts/` is held here to its promise: it names every key, each with its default, so that nothing a
//! user copies from it is refused and no key stays hidden. It does not start a broker.

use super::*;
use crate::config::Key;

fn serve(arguments: &[&str]) -> ServeArguments {
    match parse([&["corelane"], arguments].concat()) {
        Ok(Request::Serve(serve)) => serve,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn load(arguments: &[&str]) -> Result<BrokerConfig, UsageError> {
    serve(arguments).load()
}

/// A file below the directory of temporary files, removed when dropped.
fn file_with(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
    file
}

#[test]
fn no_subcommand_is_serve() {
    assert_eq!(serve(&[]), serve(&["serve"]));
    assert_eq!(serve(&["--node-id", "3"]), serve(&["serve", "--node-id", "3"]));
}

#[test]
fn what_does_not_work_yet_is_no_option() {
    for arguments in [
        &["serve", "--controllers", "1@localhost:1"][..],
        &["check"],
        &["serve", "--node-id"],
        &["serve", "--set", "node.id"],
        &["serve", "--set", "=1"],
        &["serve", "extra"],
    ] {
        let result = parse([&["corelane"], arguments].concat());
        assert!(matches!(result, Err(UsageError::Arguments(_))), "{arguments:?}: {result:?}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let printed = |arguments: &[&str]| match parse([&["corelane"], arguments].concat()) {
        Ok(Request::Print(text)) => text,
        other => panic!("{arguments:?}: {other:?}"),
    };
    assert_eq!(printed(&["version"]), format!("corelane {}\n", env!("CARGO_PKG_VERSION")));
    for option in
        ["--config", "--set", "--data-dir", "--listen", "--advertise", "--admin-listen", "--node-id", "--shards"]
    {
        assert!(printed(&["serve", "--help"]).contains(option), "{option}");
    }
}

#[test]
fn a_flag_wins_over_set_and_set_over_the_file() {
    let file = file_with("node.id = 2\nnum.partitions = 2\n[log.retention]\nbytes = 2\n");
    let path = file.path().to_str().expect("a path in UTF-8");
    let config = load(&["--node-id", "4", "--set", "node.id=3", "--set", "num.partitions=3", "--config", path]);
    let config = config.expect("valid");
    assert_eq!((config.node_id.value(), config.partitions_default.get()), (4, 3));
    let topic = config.topic([] as [(&str, &str); 0]).expect("valid");
    assert_eq!(topic.retention_bytes_max, Some(2));
}

#[test]
fn every_flag_reaches_its_key() {
    let places = ["--data-dir", "/d", "--listen", ":0", "--advertise", "a.lan:7", "--admin-listen", "none"];
    let config = load(&[&places[..], &["--node-id", "9"]].concat()).expect("valid");
    assert_eq!(config.admin_listener, None);
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    assert_eq!(config.node_id.value(), 9);
    assert_eq!(config.listeners[0].port, 0);
    assert_eq!(config.listeners[0].advertised.host, "a.lan");
}

#[test]
fn errors_say_where_the_mistake_stands() {
    let message = |arguments: &[&str]| load(arguments).expect_err("refused").to_string();
    assert!(message(&["--node-id", "-1"]).starts_with("--node-id: 'node.id' ranges from 0"));
    assert!(
        message(&["--set", "node.idd=1"]).starts_with("--set: unknown key 'node.idd'; the nearest one is 'node.id'")
    );
    assert!(
        message(&["--config", "/nonexistent.toml"]).starts_with("cannot read the configuration file /nonexistent.toml")
    );
    let file = file_with("node.id = \"x\"");
    let path = file.path().to_str().expect("a path in UTF-8");
    assert!(message(&["--config", path]).starts_with(&format!("{path}: 'node.id' is an integer")));
}

const EXAMPLE: &str = include_str!("../../scripts/corelane.toml");

/// The example with its keys switched on: a line `# key = value` is a key, other comments have no `=`.
fn example_switched_on() -> String {
    let on = |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned();
    EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_file_is_accepted_as_it_is_and_with_every_key_switched_on() {
    for text in [EXAMPLE.to_owned(), example_switched_on()] {
        let file = file_with(&text);
        load(&["--config", file.path().to_str().expect("a path in UTF-8")]).expect("the example is valid");
    }
}

#[test]
fn the_example_file_names_every_key_with_its_default() {
    let text = example_switched_on();
    let written = |key: &Key| {
        let value = |line: &'_ str| {
            let (name, value) = line.split_once(" = ")?;
            (name.trim_matches('"') == key.name).then(|| value.to_owned())
        };
        let line = text.lines().find_map(value);
        line.unwrap_or_else(|| panic!("{} is not in the example", key.name)).trim_matches('"').to_owned()
    };
    for key in keys::ALL {
        let value = written(key);
        assert!(key.default.is_none_or(|default| default == value), "{} = {value}", key.name);
    }
}
