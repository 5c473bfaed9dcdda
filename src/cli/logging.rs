//! Log output: standard error, one line per event, as text or as JSON.
//!
//! Whatever an event carries, it stays one line: names that come from a client may hold line breaks, and a log that they
//! could write lines into would be no evidence. Standard output is not touched; it belongs to the ready line.

use std::io::{self, IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{BrokerConfig, LogFormat, LogLevel};

/// Sends every event of this process to standard error, as the configuration says. To be called once.
pub fn start_logging(config: &BrokerConfig) {
    let subscriber = subscriber(config, io::stderr().is_terminal(), io::stderr);
    tracing::subscriber::set_global_default(subscriber).expect("logging is started once in a process");
}

fn subscriber<W>(config: &BrokerConfig, colours: bool, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_max_level(level(config.log_level))
        .with_ansi(colours && config.log_format == LogFormat::Text)
        .with_writer(OneLine(writer));
    match config.log_format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// A writer that is given whole events and writes each as one line.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let mut line = Vec::with_capacity(event.len() + 16);
            for &byte in text {
                match byte {
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    other => line.push(other),
                }
            }
            line.push(b'\n');
            self.0.write_all(&line)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Settings;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that these settings give for one event of each of three levels.
    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut settings = Settings::new();
        for (name, value) in pairs {
            settings.add_set(name, value).unwrap();
        }
        let config = BrokerConfig::new(settings, 1, 1 << 30).unwrap();
        let captured = Captured::default();
        let writer = captured.clone();
        tracing::subscriber::with_default(subscriber(&config, false, move || writer.clone()), || {
            tracing::error!(client = "a\nb", "first\r\nsecond");
            tracing::info!("third");
            tracing::debug!("fourth");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_is_one_line_of_text_whatever_it_carries() {
        let lines = lines(&[]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("ERROR") && lines[0].contains(r"first\r\nsecond") && lines[0].contains("a\\nb"));
        assert!(lines[1].contains("INFO") && lines[1].ends_with("third"));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let lines = lines(&[("log.format", "json")]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')));
        assert!(lines[0].contains(r#""message":"first\r\nsecond""#), "{}", lines[0]);
    }

    #[test]
    fn the_level_decides_which_lines_there_are() {
        let count = |level| lines(&[("log.level", level)]).len();
        assert_eq!((count("error"), count("info"), count("debug")), (1, 2, 3));
    }
}
