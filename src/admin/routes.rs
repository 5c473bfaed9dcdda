//! What the admin server answers to which request.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | 200: the metrics of every shard that has started, as Prometheus reads them |
//! | `/healthz` | 200 while no shard is stuck; 503 and the shard otherwise. For a supervisor that restarts what is broken |
//! | `/readyz` | 200 from the ready line until the drain begins; 503 and the reason otherwise. For a load balancer |
//!
//! Other paths are 404, other methods than GET and HEAD 405. A query is ignored. Whether the disk works is none of these:
//! a restart would not mend it, and the metrics tell.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::broker::{Phase, Status};
use crate::metrics;
use crate::runtime::Duration;
use crate::wire::ApiKey;

/// How long a shard may stand still before it is stuck: much longer than any turn takes, also when the machine pages or the
/// disk makes a system call wait, and short enough for a supervisor to act within half a minute.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The answer to a request.
pub(super) fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    let route = match path {
        "/metrics" => metrics,
        "/healthz" => health,
        "/readyz" => readiness,
        _ => return text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    route(status)
}

fn metrics(status: &Status) -> Response<Full<Bytes>> {
    let api_name = |code| ApiKey::from_code(code).map(ApiKey::name);
    let body = metrics::render(&status.readings(), api_name);
    response(StatusCode::OK, metrics::CONTENT_TYPE, body)
}

fn health(status: &Status) -> Response<Full<Bytes>> {
    match status.stuck_shard(STUCK_AFTER) {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(stuck) => {
            let reason = format!("shard {} has made no progress for {} s\n", stuck.shard.0, stuck.time.as_secs());
            text(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

fn readiness(status: &Status) -> Response<Full<Bytes>> {
    let (code, reason) = match status.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Serving => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    text(code, reason.to_owned())
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(code, "text/plain; charset=utf-8", body)
}

fn response(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use hyper::body::Body;

    use super::*;

    const WELL: &[Duration] = &[Duration::ZERO, Duration::from_secs(9)];
    const STUCK: &[Duration] = &[Duration::ZERO, Duration::from_secs(12)];

    fn asked(method: &Method, path: &str, phase: Phase, stuck: &[Duration]) -> Response<Full<Bytes>> {
        answer(method, path, &Status::for_test(phase, stuck))
    }

    /// Status and body of the answer to a GET.
    fn got(path: &str, phase: Phase, stuck: &[Duration]) -> (u16, String) {
        let answer = asked(&Method::GET, path, phase, stuck);
        let code = answer.status().as_u16();
        let length = answer.body().size_hint().exact().expect("one buffer");
        let bytes = read(answer.into_body());
        assert_eq!(bytes.len() as u64, length);
        (code, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    fn read(mut body: Full<Bytes>) -> Bytes {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(&mut body).poll_frame(&mut context) {
            std::task::Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("no trailers"),
            other => panic!("not one buffer: {other:?}"),
        }
    }

    #[test]
    fn readiness_follows_the_broker() {
        for (phase, code, body) in [
            (Phase::Starting, 503, "starting\n"),
            (Phase::Serving, 200, "ready\n"),
            (Phase::Draining, 503, "draining\n"),
        ] {
            assert_eq!(got("/readyz", phase, STUCK), (code, body.to_owned()));
        }
    }

    #[test]
    fn health_is_that_of_the_shards_in_every_phase() {
        for phase in [Phase::Starting, Phase::Serving, Phase::Draining] {
            assert_eq!(got("/healthz", phase, WELL), (200, "ok\n".to_owned()));
            assert_eq!(got("/healthz", phase, STUCK), (503, "shard 1 has made no progress for 12 s\n".to_owned()));
        }
        assert_eq!(got("/healthz", Phase::Starting, &[]), (200, "ok\n".to_owned()), "no shard has started");
    }

    #[test]
    fn metrics_are_those_of_every_shard() {
        let (code, body) = got("/metrics", Phase::Serving, STUCK);
        assert_eq!(code, 200);
        for line in ["corelane_commits_total{shard=\"0\"} 1\n", "corelane_commits_total{shard=\"1\"} 2\n"] {
            assert!(body.contains(line), "{body}");
        }
        let answer = asked(&Method::GET, "/metrics", Phase::Serving, WELL);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    }

    #[test]
    fn every_api_has_a_name_that_needs_no_escape() {
        for row in crate::wire::table::TABLE {
            assert!(metrics::ApiCode::new(row.key.code()).is_some(), "{}", row.name);
            assert!(row.name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", row.name);
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert_eq!(got("/", Phase::Serving, WELL).0, 404);
        assert_eq!(got("/metrics/", Phase::Serving, WELL).0, 404);
        let refused = asked(&Method::POST, "/healthz", Phase::Serving, WELL);
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
        assert_eq!(asked(&Method::HEAD, "/healthz", Phase::Serving, WELL).status(), 200);
    }
}
