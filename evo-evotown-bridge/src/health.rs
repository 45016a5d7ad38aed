//! How the bridge is, for whoever embeds or watches it.

use std::{sync::Arc, time::Duration};

use evo_common::metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use serde::Serialize;
use tokio::sync::{Notify, watch};

/// How the bridge is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether king's event log could be read the last time.
    pub king: bool,
    /// Whether Evotown took what it was sent the last time.
    pub evotown: bool,
    /// Deliveries that wait.
    pub backlog: u64,
    /// Deliveries that Evotown refused for good; `evo bridge status` lists them.
    pub parked: u64,
    /// Deliveries that Evotown has taken since this process started.
    pub delivered: u64,
    /// Place in king's event log up to which everything is queued.
    pub cursor: i64,
    /// How often the end of king's event log was reached.
    #[serde(skip)]
    pub(crate) passes: u64,
    /// Whether the bridge has ended.
    #[serde(skip)]
    pub(crate) ended: bool,
    /// What went wrong last; absent when all is well.
    pub last_error: Option<String>,
}

/// The two that the bridge stands between; names the one that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    King,
    Evotown,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::King => "king",
            Self::Evotown => "Evotown",
        }
    }
}

/// A view of a bridge that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    report: Arc<watch::Sender<Report>>,
    /// Makes the follower look at king's log at once.
    pub(crate) look: Arc<Notify>,
}

impl Health {
    pub(crate) fn new() -> Self {
        let (report, _) = watch::channel(Report::default());
        Self { report: Arc::new(report), look: Arc::new(Notify::new()) }
    }

    /// How the bridge is now.
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Shows this bridge among the figures of the process.
    pub fn publish(&self) {
        metrics::process().register_collector(Box::new(Figures(self.clone())));
    }

    /// Waits until everything that king's log holds at this moment has been delivered; false when
    /// that takes longer than `patience`, or the bridge ends. What is not delivered stays queued.
    pub async fn settled(&self, patience: Duration) -> bool {
        let settle = async {
            let mut report = self.report.subscribe();
            // A look that is under way may have begun before this call: the second one counts.
            let seen = report.borrow().passes;
            for pass in [seen, seen + 1] {
                self.look.notify_one();
                report.wait_for(|report| report.ended || report.passes > pass).await?;
            }
            let last = report.wait_for(|report| report.ended || report.backlog == 0).await?;
            Ok::<_, watch::error::RecvError>(!last.ended)
        };
        matches!(tokio::time::timeout(patience, settle).await, Ok(Ok(true)))
    }

    /// A side did what it should; what was wrong with it is over.
    pub(crate) fn well(&self, side: Side) {
        self.update(|report| {
            match side {
                Side::King => report.king = true,
                Side::Evotown => report.evotown = true,
            }
            let over = |error: &String| error.starts_with(side.name());
            if report.last_error.as_ref().is_some_and(over) {
                report.last_error = None;
            }
        });
    }

    /// A side did not do what it should.
    pub(crate) fn unwell(&self, side: Side, reason: &str) {
        self.update(|report| {
            match side {
                Side::King => report.king = false,
                Side::Evotown => report.evotown = false,
            }
            report.last_error = Some(format!("{}: {reason}", side.name()));
        });
    }

    /// The bridge has ended; with what made it, unless somebody asked for it.
    pub(crate) fn ended(&self, error: Option<String>) {
        self.update(|report| {
            (report.ended, report.king, report.evotown) = (true, false, false);
            if let Some(error) = error {
                report.last_error = Some(format!("the bridge has ended: {error}"));
            }
        });
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
    }
}

/// A bridge as figures for Prometheus.
#[derive(Debug)]
struct Figures(Health);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.0.report();
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let gauges = [
            ("king_up", "Whether king's event log could be read", i64::from(report.king)),
            ("evotown_up", "Whether Evotown took what it was sent", i64::from(report.evotown)),
            ("backlog", "Deliveries that wait", count(report.backlog)),
            ("parked", "Deliveries that Evotown refused for good", count(report.parked)),
            ("cursor", "Place in king's event log that was read up to", report.cursor),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let name = format!("evo_bridge_{name}");
            gauge.encode(encoder.encode_descriptor(&name, help, None, gauge.metric_type())?)?;
        }
        let delivered = ConstCounter::new(report.delivered);
        let (name, help) = ("evo_bridge_delivered", "Deliveries that Evotown has taken");
        delivered.encode(encoder.encode_descriptor(name, help, None, delivered.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_settles_when_a_look_after_the_call_has_been_delivered() {
        let health = Health::new();
        let waiting = {
            let health = health.clone();
            async move { health.settled(Duration::from_secs(10)).await }
        };
        let work = async {
            // The look that was under way.
            health.look.notified().await;
            health.update(|report| report.passes += 1);
            health.look.notified().await;
            health.update(|report| {
                report.passes += 1;
                report.backlog = 3;
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            health.update(|report| report.backlog = 0);
        };
        assert!(tokio::join!(waiting, work).0);
        assert!(!health.settled(Duration::from_secs(1)).await, "nobody looks any more");
        health.ended(Some("the disk is full".to_owned()));
        let before = tokio::time::Instant::now();
        assert!(!health.settled(Duration::from_secs(600)).await);
        assert!(before.elapsed().is_zero(), "there is nothing to wait for");
        let error = health.report().last_error.unwrap();
        assert_eq!(error, "the bridge has ended: the disk is full");
    }

    #[test]
    fn it_shows_as_figures() {
        let health = Health::new();
        health.update(|report| {
            (report.king, report.backlog, report.delivered) = (true, 3, 7);
        });
        health.publish();
        let text = metrics::text(&metrics::process());
        for line in ["evo_bridge_king_up 1", "evo_bridge_backlog 3", "evo_bridge_delivered_total 7"]
        {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
