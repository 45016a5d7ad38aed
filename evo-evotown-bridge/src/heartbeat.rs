//! Signs of life. Evotown shows an engine as present for 120 s after one.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Answer, Client, Meaning},
    config::Timing,
    health::{Health, Side},
    payload::ENGINE_VERSION,
    session::Session,
};

/// A server that knows no signs of life is asked again after this: it may have been a proxy that
/// answered in its place.
const ASK_AGAIN: Duration = Duration::from_secs(1_800);

/// Sends signs of life until shutdown. Registers the engine if need be, so that Evotown shows it
/// before its first run.
pub(crate) async fn run(
    client: Arc<Client>,
    session: Arc<Session>,
    health: Health,
    engine_id: String,
    timing: Timing,
    shutdown: CancellationToken,
) {
    loop {
        let pause = tokio::select! {
            () = shutdown.cancelled() => return,
            beat = beat(&client, &session, &health, &engine_id) => match beat {
                Beat::Taken => timing.heartbeat,
                // With another token, or when Evotown is back.
                Beat::Failed => timing.heartbeat.min(timing.longest_pause),
                Beat::Unknown => ASK_AGAIN,
            },
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn sign_of_life() -> String {
    json!({"engine_version": ENGINE_VERSION, "connector_version": ENGINE_VERSION}).to_string()
}

enum Beat {
    Taken,
    Failed,
    /// The server knows no signs of life.
    Unknown,
}

async fn beat(client: &Client, session: &Session, health: &Health, engine_id: &str) -> Beat {
    if session.blocked().await.is_some() {
        return Beat::Failed;
    }
    let pass = match session.pass().await {
        Ok(pass) => pass,
        Err(none) => {
            health.unwell(Side::Evotown, &none.reason);
            return Beat::Failed;
        }
    };
    let path = ["engines", engine_id, "heartbeat"];
    match client.post(&path, &pass.credential, sign_of_life()).await.map(Answer::meaning) {
        Ok(Meaning::Accepted(_)) => {
            health.well(Side::Evotown);
            Beat::Taken
        }
        Ok(Meaning::Auth(reason)) => {
            session.refused(&pass, &reason).await;
            Beat::Failed
        }
        Ok(Meaning::Missing(reason) | Meaning::NoRoute(reason)) => {
            tracing::info!("This Evotown takes no signs of life for now ({reason})");
            Beat::Unknown
        }
        Ok(other) => {
            tracing::debug!(?other, "A sign of life was not taken");
            Beat::Failed
        }
        Err(unreachable) => {
            health.unwell(Side::Evotown, &unreachable.reason);
            Beat::Failed
        }
    }
}
