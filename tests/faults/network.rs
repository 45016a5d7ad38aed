//! The network between king and its runners: slow, stalled, cut, and pulled out.

use std::time::Duration;

use evo_harness::faults::{Service, Weather};

/// Long enough to be in the middle of it.
const STAGE: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_survive_a_network_that_fails_in_every_way() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.start().await;
    let runners = service.runners(STAGE);
    service.agents(5).await;
    let ms = Duration::from_millis;
    let weathers = [
        (Weather::Slow(ms(80)), ms(600)),
        (Weather::Cut, ms(400)),
        (Weather::Stalled, ms(600)),
        (Weather::Slow(ms(30)), ms(300)),
        (Weather::Cut, ms(50)),
        // Nobody is told: king by its lease, the runner by its heartbeats find out themselves.
        (Weather::HalfOpen, ms(500)),
    ];
    let mut runs = Vec::new();
    for (number, (weather, length)) in weathers.into_iter().enumerate() {
        for part in ["a", "b"] {
            runs.push(service.start_run(&format!("{number}{part}")).await);
        }
        tokio::time::sleep(STAGE + STAGE / 3).await;
        service.proxy.set(weather);
        tokio::time::sleep(length).await;
        service.proxy.set(Weather::Fine);
        // A reset in the middle of everything, on top.
        tokio::time::sleep(STAGE / 2).await;
        service.proxy.reset();
        service.tally.steps += 2;
    }
    service.proxy.set(Weather::HalfOpen);
    runs.push(service.start_run("while nobody hears").await);
    tokio::time::sleep(ms(300)).await;
    service.proxy.set(Weather::Fine);
    for run_id in &runs {
        let run = service.ended(run_id).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
    let faults = service.check(Some(&runners)).await;
    println!("{}", service.tally);
    assert_eq!(faults, Vec::<String>::new());
    runners.stop().await;
}
