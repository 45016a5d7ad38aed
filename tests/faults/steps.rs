//! King is killed at each of its places: before and after every commit, every delivery of an effect
//! and every answer of a run of five stages. Each time on a fresh folder, and each time the run must
//! end as if nothing had happened.

use std::time::Duration;

use evo_harness::faults::{Service, Tally, lines_of};
use futures_util::{StreamExt as _, stream};

/// Kings at the same time; most of their time they wait.
const ABREAST: usize = 5;
/// Long enough that the confirmation of an attempt and its result are commits of their own.
const STAGE: Duration = Duration::from_millis(15);

/// One king, its runners and one run; killed at the given place, if one is given.
#[expect(clippy::print_stderr, reason = "it is part of the test")]
async fn one_run(place: Option<u64>) -> (Tally, Vec<String>, Vec<String>) {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    let log = service.fail_at(place);
    service.launch();
    let runners = service.runners(STAGE);
    service.agents(5).await;
    let run_id = service.start_run("one").await;
    let run = service.ended(&run_id).await;
    let mut faults = service.check(Some(&runners)).await;
    if run["status"] != "completed" || !run["outcome"].is_null() {
        faults.push(format!("another outcome: {run}"));
    }
    let places = lines_of(&log);
    if let Some(place) = place {
        let name = places.last().cloned().unwrap_or_default();
        for fault in &mut faults {
            *fault = format!("killed at place {name}: {fault}");
        }
        service.tally.steps = 1;
        // A run that took a shorter way has proved nothing about this place.
        if service.tally.kills == 0 {
            service.tally.steps = 0;
            eprintln!("place {place} was not passed this time; the last one was {name}");
        }
    }
    runners.stop().await;
    (service.tally, faults, places)
}

/// [`one_run`], again when it took a shorter way that did not lead by the place: commits that come at
/// the same moment are one.
async fn killed_at(place: u64) -> (Tally, Vec<String>) {
    let mut tries = 3;
    loop {
        let (tally, faults, _) = one_run(Some(place)).await;
        tries -= 1;
        if tally.kills > 0 || tries == 0 {
            return (tally, faults);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_the_same_wherever_king_is_killed() {
    let (tally, faults, places) = one_run(None).await;
    assert_eq!((tally.finished, &faults[..]), (1, &[][..]), "without any fault: {faults:?}");
    for kind in ["first commit", "commit", "delivery", "answer", "answer over HTTP"] {
        for side in ["before", "after"]
            .into_iter()
            .filter(|side| *side == "before" || !kind.ends_with("HTTP"))
        {
            let named = |place: &&String| place.contains(side) && place.ends_with(kind);
            assert!(places.iter().filter(named).count() > 0, "no place {side} {kind}: {places:?}");
        }
    }
    let all = 1..=places.len() as u64;
    let runs = stream::iter(all.map(killed_at)).buffer_unordered(ABREAST);
    let (sum, faults) = runs
        .fold((Tally::default(), Vec::new()), |(mut sum, mut faults), (tally, more)| async move {
            sum += tally;
            faults.extend(more);
            (sum, faults)
        })
        .await;
    println!("{sum}");
    assert_eq!(faults, Vec::<String>::new(), "{sum}");
    assert_eq!(sum.finished, places.len() as u64, "{sum}");
    // Heartbeats come when they come: the last few places may be missing in another run.
    assert!(sum.steps + 8 >= places.len() as u64, "{sum} of {}", places.len());
    assert_eq!(sum.kills, sum.steps);
}
