//! Instruments of our own HTTP server, with the labels of the Python instrumentator.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{PYTHON_BUCKETS, counters, gauges, histograms, registered};

/// Our own HTTP server. `handler` is the route's template, `none` when none matched;
/// `method` is one of the usual ones or `other`; `status` is the code.
pub struct Http {
    /// Answered requests by `method`, `handler` and `status`.
    pub requests: IntCounterVec,
    /// Time until the answer began, by `method` and `handler`.
    pub seconds: HistogramVec,
    /// Requests under way by `method` and `handler`, under the documented name.
    pub in_progress: IntGaugeVec,
    /// The same under the name that the Python instrumentator really uses.
    pub inprogress: IntGaugeVec,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections without a request that were closed because others needed the room.
    pub closed_for_room: IntCounter,
    /// Requests refused before they reached a handler, by `reason`.
    pub refused: IntCounterVec,
}

/// Why a request is refused: `reason` of `pulse_ui_refused_total`.
pub(crate) const REFUSALS: [&str; 4] = ["not_ready", "host", "origin", "auth"];

impl Http {
    pub(super) fn new(r: &Registry) -> Http {
        let by_handler = ["method", "handler"];
        let http = Http {
            requests: counters(
                r,
                "http_requests_total",
                "Answered HTTP requests.",
                &["method", "handler", "status"],
            ),
            seconds: histograms(
                r,
                "http_request_duration_seconds",
                "Time until the answer to an HTTP request began.",
                &PYTHON_BUCKETS,
                &by_handler,
            ),
            in_progress: gauges(
                r,
                "http_requests_in_progress",
                "HTTP requests under way.",
                &by_handler,
            ),
            inprogress: gauges(
                r,
                "http_requests_inprogress",
                "HTTP requests under way, as the Python instrumentator names it.",
                &by_handler,
            ),
            connections: registered(
                r,
                IntGauge::new("pulse_ui_connections", "Open HTTP connections.")
                    .expect("BUG: a bad metric name"),
            ),
            closed_for_room: registered(
                r,
                IntCounter::new(
                    "pulse_ui_connections_closed_for_room_total",
                    "HTTP connections without a request that were closed because all were taken.",
                )
                .expect("BUG: a bad metric name"),
            ),
            refused: counters(
                r,
                "pulse_ui_refused_total",
                "HTTP requests refused before they reached a handler.",
                &["reason"],
            ),
        };
        for reason in REFUSALS {
            http.refused.with_label_values(&[reason]);
        }
        http.add_handler("GET", "/metrics");
        http
    }

    /// Makes the children of a route, so that its zeros are visible.
    pub fn add_handler(&self, method: &str, handler: &str) {
        self.requests.with_label_values(&[method, handler, "200"]);
        let by_handler = &[method, handler];
        self.seconds.with_label_values(by_handler);
        self.in_progress.with_label_values(by_handler);
        self.inprogress.with_label_values(by_handler);
    }
}
