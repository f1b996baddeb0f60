//! Answers scrapers with what is known at the moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::MetricsConfig;
use super::text::{CONTENT_TYPE, Now, metrics};
use crate::event::{Estimate, EstimateKind, State};
use crate::health::Health;
use crate::port::{Clients, Outbound, PeerError, Writer};
use crate::transport::http::{Answer, HttpServer};

/// Older estimates are no position.
const FRESH: Duration = Duration::from_secs(2);

/// Serves metrics and health.
pub struct MetricsServer {
    server: HttpServer,
    health: Option<Arc<Health>>,
    estimate: Option<(Arc<Estimate>, Instant)>,
}

impl MetricsServer {
    /// Listens where the config says.
    pub fn open(config: &MetricsConfig) -> Result<Self, PeerError> {
        Ok(Self {
            server: HttpServer::listen("metrics", &config.listen)?,
            health: None,
            estimate: None,
        })
    }
}

impl Writer for MetricsServer {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Health(health) => self.health = Some(health.clone()),
            Outbound::Estimate(estimate) if estimate.kind == EstimateKind::Fused => {
                self.estimate = Some((estimate.clone(), Instant::now()));
            }
            _ => {}
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        let now = Now {
            health: self.health.as_deref(),
            estimate: self.estimate.as_ref().map(|(estimate, _)| &**estimate),
            age: self.estimate.as_ref().map(|(_, came)| came.elapsed()),
        };
        self.server.poll(|request| answer(request.path, &now));
        Ok(())
    }

    fn clients(&self) -> Option<Clients> {
        Some(self.server.count())
    }
}

fn answer(path: &str, now: &Now<'_>) -> Answer {
    match path {
        "/metrics" => Answer::new("200 OK", CONTENT_TYPE, metrics(now)),
        "/health" => health(now),
        _ => Answer::text("404 Not Found", "/metrics and /health are here"),
    }
}

/// 200 while there is a fresh position.
fn health(now: &Now<'_>) -> Answer {
    let fresh = now.age.is_some_and(|age| age < FRESH);
    let state = now.estimate.map(|estimate| estimate.state);
    let good = fresh && state.is_some_and(|state| state != State::Lost);
    let body = json!({
        "status": if good { "pass" } else { "fail" },
        "state": state,
        "estimate_age_s": now.age.map(|age| age.as_secs_f64()),
        "reasons": now.health.map(|health| &health.reasons),
    });
    let status = if good {
        "200 OK"
    } else {
        "503 Service Unavailable"
    };
    Answer::new(status, "application/json", format!("{body}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing;

    #[test]
    fn health_fails_without_a_fresh_position() {
        let (ok, lost) = (testing::estimate(State::Ok), testing::estimate(State::Lost));
        let status = |estimate, age_s| {
            let now = Now {
                health: None,
                estimate,
                age: Some(Duration::from_secs(age_s)),
            };
            answer("/health", &now).status
        };
        assert_eq!(status(Some(&ok), 0), "200 OK");
        assert_eq!(status(Some(&ok), 3), "503 Service Unavailable");
        assert_eq!(status(Some(&lost), 0), "503 Service Unavailable");
        assert_eq!(status(None, 0), "503 Service Unavailable");
        let nothing = Now {
            health: None,
            estimate: None,
            age: None,
        };
        assert!(answer("/elsewhere", &nothing).status.starts_with("404"));
        let text = String::from_utf8(answer("/metrics", &nothing).body).unwrap();
        assert!(text.contains("crossfix_build_info"));
    }
}
