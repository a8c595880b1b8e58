//! Figures of one thread, recorded without a look-up per request.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use dovetail_routing::names::ServiceCluster;
use metrics::{Counter, Gauge, Histogram};

/// One thread's handles to the process's metrics.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// By service cluster (nearly always one), status class and error.
    requests: RefCell<Vec<Requests>>,
    seconds: OnceCell<Histogram>,
}

/// What was counted: requests of a service cluster, by status class and error.
#[derive(Debug)]
struct Requests {
    cluster: Option<ServiceCluster>,
    class: u16,
    error: Option<&'static str>,
    counter: Counter,
}

impl Telemetry {
    /// A request ended.
    pub fn request(
        &self,
        cluster: Option<&ServiceCluster>,
        status: u16,
        error: Option<&'static str>,
        elapsed: Duration,
    ) {
        let class = status / 100;
        let mut requests = self.requests.borrow_mut();
        let known = requests.iter().find(|known| {
            known.class == class && known.error == error && known.cluster.as_ref() == cluster
        });
        match known {
            Some(known) => known.counter.increment(1),
            None => {
                let counter = metrics::counter!(
                    "dovetail_proxy_requests_total",
                    "service_cluster" => cluster.map_or("", ServiceCluster::as_str).to_owned(),
                    "status_class" => format!("{class}xx"),
                    "error" => error.unwrap_or(""),
                );
                counter.increment(1);
                requests.push(Requests { cluster: cluster.cloned(), class, error, counter });
            }
        }
        self.seconds
            .get_or_init(|| metrics::histogram!("dovetail_proxy_request_duration_seconds"))
            .record(elapsed);
    }

    /// A client's bytes were not a request.
    pub fn violation(&self, kind: &'static str) {
        metrics::counter!("dovetail_proxy_requests_refused_total", "reason" => kind).increment(1);
    }

    /// A connection was turned away or broken off.
    pub fn connection_ended(&self, reason: &'static str) {
        metrics::counter!("dovetail_proxy_connections_ended_total", "reason" => reason)
            .increment(1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, result: &'static str) {
        metrics::counter!("dovetail_proxy_tls_handshakes_total", "result" => result).increment(1);
    }

    /// A TLS stream was passed on unopened, or no upstream took it.
    pub fn passed_through(&self, result: &'static str) {
        metrics::counter!("dovetail_proxy_passthrough_connections_total", "result" => result)
            .increment(1);
    }

    /// An upstream was taken out by passive checks.
    pub fn upstream_out(&self) {
        metrics::counter!("dovetail_proxy_upstreams_taken_out_total").increment(1);
    }

    /// An attempt failed, and the budget for others was used up.
    pub fn not_retried(&self) {
        metrics::counter!("dovetail_proxy_retries_refused_total").increment(1);
    }

    /// An attempt failed and another upstream was asked.
    pub fn retried(&self) {
        metrics::counter!("dovetail_proxy_retries_total").increment(1);
    }
}

/// Open downstream connections.
pub fn connections() -> Gauge {
    metrics::gauge!("dovetail_proxy_connections")
}

/// Names what the metrics mean. Once per process.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("dovetail_proxy_requests_total", "Requests by status class and error.");
    describe_histogram!(
        "dovetail_proxy_request_duration_seconds",
        metrics::Unit::Seconds,
        "From the head of a request to the end of its response."
    );
    describe_gauge!("dovetail_proxy_connections", "Open downstream connections.");
    describe_gauge!(
        "dovetail_proxy_problems",
        "What this proxy cannot do as the routes ask: certificates that it cannot use, and the like."
    );
    describe_counter!(
        "dovetail_proxy_requests_refused_total",
        "Byte streams that were not requests, by reason."
    );
    describe_counter!(
        "dovetail_proxy_connections_ended_total",
        "Downstream connections that the proxy ended, by reason."
    );
    describe_gauge!(
        "dovetail_proxy_certificate_expiry_timestamp_seconds",
        metrics::Unit::Seconds,
        "When the first of the hosts' certificates in force expires; 0 if there is none."
    );
    describe_counter!(
        "dovetail_proxy_tls_handshakes_total",
        "TLS handshakes of clients, by result: full, resumed, or why they were refused."
    );
    describe_counter!(
        "dovetail_proxy_passthrough_connections_total",
        "TLS streams for hosts with passthrough, by result."
    );
    describe_counter!(
        "dovetail_proxy_upstreams_taken_out_total",
        "Times that passive checks took an upstream out."
    );
    describe_counter!("dovetail_proxy_retries_total", "Attempts that followed a failed one.");
    describe_counter!(
        "dovetail_proxy_retries_refused_total",
        "Attempts that were not made because a fifth of the requests had more than one already."
    );
    describe_counter!(
        "dovetail_proxy_access_log_lines_dropped_total",
        "Lines that the access log had no room for."
    );
}
