use evo_common::tokens::Secret;

use super::{
    reader::{MAX_ANSWER, SMALLEST_PAGE},
    *,
};
use crate::{
    config::Link,
    tests::king::{self, King},
};

/// A follower of this king, with a queue of its own.
async fn follower(king: &King, folder: &std::path::Path) -> Follower {
    let env = |name: &str| match name {
        "EVO_EVOTOWN_URL" => Some("http://127.0.0.1:1".to_owned()),
        "EVO_EVOTOWN_TOKEN" => Some("t".to_owned()),
        _ => None,
    };
    let link = Link::from_env(&env).unwrap().unwrap();
    let config = Config::new(link, king.url(), Some(Secret::new(king::VIEWER)), folder);
    let health = Health::new();
    let spool = Spool::open(&config.spool_file(), health.clone()).await.unwrap();
    let identity = Identity { engine_id: "e".to_owned(), ..Identity::default() };
    Follower::new(&config, spool, health, Arc::new(identity)).unwrap()
}

/// Looks until the log is read to its end; gives what stood in the way.
async fn look(follower: &mut Follower) -> Vec<String> {
    let mut reasons = Vec::new();
    while let Err(trouble) = follower.look().await {
        reasons.push(trouble.passing().unwrap());
        assert!(reasons.len() < 60, "{reasons:?}");
    }
    reasons
}

#[tokio::test]
async fn a_page_that_is_too_large_is_read_in_parts() {
    let (king, folder) = (King::start().await, tempfile::tempdir().unwrap());
    for n in 0..10 {
        king.run(&format!("run-{n}"), "cycle", "active");
    }
    let mut follower = follower(&king, folder.path()).await;
    follower.reader.most = 4_000;
    let reasons = look(&mut follower).await;
    assert!(reasons.len() > 2, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("more than 4000 bytes")), "{reasons:?}");
    assert_eq!(follower.health.report().backlog, 70, "everything was read, and once");
    follower.reader.most = MAX_ANSWER;
    assert_eq!(look(&mut follower).await, Vec::<String>::new());
    assert!(follower.reader.page > SMALLEST_PAGE, "it asks for more again");
}

#[tokio::test]
async fn a_package_that_king_can_not_give_holds_nothing_up() {
    let (king, folder) = (King::start().await, tempfile::tempdir().unwrap());
    king.damage_packages();
    king.run("run-a", "cycle", "active");
    let mut follower = follower(&king, folder.path()).await;
    let reasons = look(&mut follower).await;
    assert_eq!(reasons.len(), 2, "tried again, and not for ever: {reasons:?}");
    assert!(reasons[0].starts_with("status 500"), "{reasons:?}");
    assert_eq!(follower.health.report().backlog, 7);
}

#[tokio::test]
async fn a_log_that_never_goes_on_does_not_keep_it_busy() {
    let (king, folder) = (King::start().await, tempfile::tempdir().unwrap());
    for n in 0..10 {
        king.run(&format!("run-{n}"), "cycle", "active");
    }
    king.change_moments();
    let mut follower = follower(&king, folder.path()).await;
    follower.reader.page = SMALLEST_PAGE;
    let trouble = follower.look().await.unwrap_err().passing().unwrap();
    assert!(trouble.contains("does not go on"), "{trouble}");
}

#[tokio::test]
async fn events_that_king_has_taken_away_are_not_another_log() {
    // The known event is gone; with others that were not read; the first one is the known one.
    for (read, more, pruned) in [(2, 1, 12), (1, 3, 12), (1, 1, 6)] {
        let (king, folder) = (King::start().await, tempfile::tempdir().unwrap());
        for n in 0..read {
            king.run(&format!("run-{n}"), "cycle", "active");
        }
        let mut follower = follower(&king, folder.path()).await;
        assert_eq!(look(&mut follower).await, Vec::<String>::new());
        let before = follower.health.report().backlog;
        for n in read..read + more {
            king.run(&format!("run-{n}"), "cycle", "active");
        }
        king.prune(pruned);
        assert_eq!(look(&mut follower).await, Vec::<String>::new(), "{read} {more} {pruned}");
        let place = follower.spool.place().await.unwrap();
        assert_eq!(place.cursor, 6 * (read + more), "{read} {more} {pruned}");
        let left = 6 * (read + more) - pruned;
        let told = i64::try_from(follower.health.report().backlog - before).unwrap();
        assert!(told >= left, "{told} of {left}: {read} {more} {pruned}");
        assert_eq!(look(&mut follower).await, Vec::<String>::new());
        let again = i64::try_from(follower.health.report().backlog - before).unwrap();
        assert_eq!(again, told, "nothing is told twice");
    }
}

#[tokio::test]
async fn a_follower_that_knows_only_the_first_event_goes_on_where_the_log_begins() {
    let (king, folder) = (King::start().await, tempfile::tempdir().unwrap());
    king.run_started("run-a", "cycle");
    let mut follower = follower(&king, folder.path()).await;
    assert_eq!(look(&mut follower).await, Vec::<String>::new());
    assert_eq!(follower.spool.place().await.unwrap().cursor, 1);
    king.run("run-b", "cycle", "active");
    king.prune(1);
    assert_eq!(look(&mut follower).await, Vec::<String>::new());
    let place = follower.spool.place().await.unwrap();
    assert_eq!(place.cursor, 7);
    assert_eq!(place.generation, 1, "once");
}
