use std::collections::HashMap;

use evo_common::{
    ids::Attempt,
    messages::{
        PipelineNext, PipelineRunStatus, PipelineStage, PipelineStageResult, StageDispatch,
        StageReport, TaskDispatch, TaskInvite, TaskLimits, TaskReport, TaskStatus, TaskUpdate,
    },
};
use proptest::prelude::*;
use serde_json::Value;

use super::{super::work::Item, *};

const NOW: Timestamp = Timestamp(1_000_000);

/// Odd numbers are stages, even ones are tasks: the session treats them alike.
fn key(run: u8, attempt: u32) -> Key {
    let (id, attempt) = (format!("run-{run}"), Attempt(attempt));
    if run % 2 == 1 {
        Key::stage(id, PipelineStage::Building, attempt)
    } else {
        Key::task(id, attempt)
    }
}

fn dispatch(key: &Key) -> Dispatch {
    match key.item.clone() {
        Item::Stage { run_id, stage } => Dispatch::Stage(Box::new(StageDispatch {
            next: PipelineNext { stage, artifact_id: String::new(), metadata: HashMap::new() },
            run_id,
            attempt: key.attempt,
            deadline_ms: 0,
            model: None,
            trace: None,
        })),
        Item::Task { task_id } => Dispatch::Task(Box::new(TaskDispatch {
            invite: TaskInvite { task_id, task_type: "user".to_owned(), payload: Value::Null },
            agent_id: "a".to_owned(),
            attempt: key.attempt,
            deadline_ms: 0,
            summary: String::new(),
            model: None,
            memories: Vec::new(),
            limits: TaskLimits::default(),
            trace: None,
        })),
    }
}

fn report(key: &Key) -> Report {
    match key.item.clone() {
        Item::Stage { run_id, stage } => Report::Stage(Box::new(StageReport {
            result: PipelineStageResult {
                run_id,
                stage,
                agent_id: "a".to_owned(),
                status: PipelineRunStatus::Completed,
                artifact_id: String::new(),
                output: Value::Null,
                error: None,
            },
            attempt: Some(key.attempt),
            req_id: None,
            transient: false,
            seq: None,
            trace: None,
        })),
        Item::Task { task_id } => Report::Task(Box::new(TaskReport {
            update: TaskUpdate {
                task_id,
                status: Some(TaskStatus::Completed),
                agent_id: Some("a".to_owned()),
                payload: None,
            },
            attempt: key.attempt,
            req_id: String::new(),
            error: None,
            transient: false,
            steps: 0,
            usage: None,
            latency_ms: 0,
            trace: None,
        })),
    }
}

fn given(key: &Key) -> Command {
    Command::Dispatch { dispatch: dispatch(key), now: NOW }
}

fn ended(key: &Key) -> Command {
    Command::Ended { key: key.clone(), report: Some(report(key)), now: NOW }
}

fn answer(key: &Key, status: ReplyStatus) -> Command {
    Command::Reply { reply: Reply { status, ..Reply::accepted(key.req_id()) }, now: NOW }
}

fn cancelled(key: &Key) -> Command {
    Command::Cancel { key: key.clone() }
}

fn in_hand(keys: &[&Key]) -> InHand {
    keys.iter().copied().collect()
}

fn keys(in_hand: &InHand) -> BTreeSet<Key> {
    let stages = in_hand.stages.iter().map(|r| Key::stage(r.run_id.clone(), r.stage, r.attempt));
    stages.chain(in_hand.tasks.iter().map(|r| Key::task(r.task_id.clone(), r.attempt))).collect()
}

fn named_in(report: &Report) -> String {
    match report {
        Report::Stage(report) => report.req_id.clone().unwrap_or_default(),
        Report::Task(report) => report.req_id.clone(),
    }
}

/// A session that king knows.
fn registered(capacity: u32) -> Session {
    let mut session = Session::new("a".to_owned(), "s".to_owned(), capacity);
    register(&mut session);
    session
}

/// Connects and registers; gives what is sent right after.
fn register(session: &mut Session) -> Vec<Effect> {
    let effects = session.decide(Command::Welcome { now: NOW });
    let [Effect::Register { req_id, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    session.decide(Command::Reply { reply: Reply::accepted(req_id), now: NOW })
}

fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Register { .. } => "register",
            Effect::Heartbeat { .. } => "heartbeat",
            Effect::Accept { .. } => "accept",
            Effect::Start { .. } => "start",
            Effect::Stop { .. } => "stop",
            Effect::Persist { .. } => "persist",
            Effect::Send { .. } => "send",
            Effect::Forget { .. } => "forget",
            Effect::Refusal { .. } => "refusal",
            Effect::GiveUp { .. } => "give-up",
            Effect::Ignored { .. } => "ignored",
        })
        .collect()
}

fn run(session: &mut Session, command: Command) -> Vec<&'static str> {
    kinds(&session.decide(command))
}

#[test]
fn an_attempt_is_confirmed_done_kept_sent_and_forgotten() {
    let mut session = registered(1);
    let a = key(1, 1);
    assert_eq!(run(&mut session, given(&a)), ["accept", "start"]);
    assert_eq!(run(&mut session, given(&a)), ["accept"]);
    assert_eq!(run(&mut session, ended(&a)), ["persist", "send"]);
    assert_eq!(run(&mut session, given(&a)), ["send"], "the result is there already");
    assert_eq!(session.in_hand(), in_hand(&[&a]));
    assert_eq!(run(&mut session, answer(&a, ReplyStatus::Accepted)), ["forget"]);
    assert!(session.in_hand() == InHand::default());
    assert_eq!(run(&mut session, given(&a)), ["ignored"], "a late repeat starts nothing");
}

#[test]
fn a_registration_is_repeated_until_it_is_answered() {
    let mut session = Session::new("a".to_owned(), "s".to_owned(), 1);
    let first = session.decide(Command::Welcome { now: NOW });
    assert_eq!(run(&mut session, Command::Tick { now: NOW.plus_ms(4_999) }), [""; 0]);
    let second = session.decide(Command::Tick { now: NOW.plus_ms(5_000) });
    assert_eq!(first, second, "under the same req_id");
    assert_eq!(run(&mut session, Command::Heartbeat), [""; 0], "heartbeats wait for it");
    let [Effect::Register { req_id, .. }] = first.as_slice() else { panic!("{first:?}") };
    let rejected = Reply::rejected(req_id, "invalid_field", "no");
    assert_eq!(run(&mut session, Command::Reply { reply: rejected, now: NOW }), ["refusal"]);
    assert!(!session.is_registered());
    session.decide(Command::Reply { reply: Reply::duplicate(req_id), now: NOW });
    assert!(session.is_registered());
}

#[test]
fn a_king_that_forgot_the_runner_gets_a_new_registration() {
    let mut session = registered(1);
    let beat = session.decide(Command::Heartbeat);
    let [Effect::Heartbeat { req_id, status, .. }] = beat.as_slice() else { panic!("{beat:?}") };
    assert_eq!(*status, RunnerStatus::Ready);
    let reply = Reply::rejected(req_id, "not_registered", "who?");
    assert_eq!(run(&mut session, Command::Reply { reply, now: NOW }), ["refusal", "register"]);

    let mut session = registered(1);
    let a = key(1, 1);
    session.decide(given(&a));
    session.decide(ended(&a));
    let reply = Reply::rejected(a.req_id(), "not_registered", "who?");
    assert_eq!(run(&mut session, Command::Reply { reply, now: NOW }), ["register"]);
    assert_eq!(session.in_hand(), in_hand(&[&a]), "the result is not lost");
}

#[test]
fn results_are_sent_again_later_and_later() {
    let mut session = registered(1);
    let a = key(1, 1);
    session.decide(given(&a));
    session.decide(ended(&a));
    let mut sends = Vec::new();
    for second in 0..200 {
        let now = NOW.plus_ms(second * 1_000);
        if run(&mut session, Command::Tick { now }) == ["send"] {
            sends.push(second);
        }
    }
    assert_eq!(sends, [5, 15, 35, 75, 135, 195]);
    assert_eq!(run(&mut session, answer(&a, ReplyStatus::Retry)), [""; 0]);
    assert_eq!(run(&mut session, Command::Tick { now: NOW.plus_ms(500) }), ["send"]);
    assert_eq!(run(&mut session, answer(&a, ReplyStatus::Rejected)), ["forget", "refusal"]);
}

#[test]
fn everything_unanswered_is_sent_after_a_new_connection() {
    let mut session = registered(4);
    let (a, b, c) = (key(1, 1), key(2, 1), key(3, 1));
    for key in [&a, &b, &c] {
        session.decide(given(key));
    }
    session.decide(ended(&a));
    session.decide(Command::Disconnected);
    assert_eq!(run(&mut session, ended(&b)), ["persist"], "nothing is sent while king is away");
    assert_eq!(kinds(&register(&mut session)), ["send", "send"]);
    assert_eq!(session.in_hand(), in_hand(&[&a, &b, &c]));
}

#[test]
fn restored_results_are_in_hand_and_sent() {
    let mut session = Session::new("a".to_owned(), "s".to_owned(), 1);
    let a = key(1, 1);
    session.decide(Command::Restored { report: report(&a) });
    let effects = session.decide(Command::Welcome { now: NOW });
    assert!(
        matches!(&effects[..], [Effect::Register { in_hand, .. }] if *in_hand == self::in_hand(&[&a]))
    );
    assert_eq!(kinds(&register(&mut session)), ["send"]);
}

#[test]
fn work_beyond_the_capacity_waits_and_then_starts() {
    let mut session = registered(1);
    let (a, b, c) = (key(1, 1), key(2, 1), key(3, 1));
    session.decide(given(&a));
    assert_eq!(run(&mut session, given(&b)), ["accept"]);
    assert_eq!(run(&mut session, given(&c)), ["ignored"]);
    assert_eq!(run(&mut session, ended(&a)), ["persist", "send", "start"]);
    let beat = session.decide(Command::Heartbeat);
    assert!(matches!(&beat[..], [Effect::Heartbeat { status: RunnerStatus::Busy, .. }]));
}

#[test]
fn a_cancel_stops_the_job_and_its_result_is_never_sent() {
    let mut session = registered(2);
    let a = key(1, 1);
    session.decide(given(&a));
    assert_eq!(run(&mut session, cancelled(&a)), ["stop"]);
    assert!(session.in_hand() == InHand::default() && session.is_working());
    assert_eq!(run(&mut session, ended(&a)), [""; 0]);
    assert!(!session.is_working());
    let b = key(2, 1);
    assert_eq!(run(&mut session, cancelled(&b)), [""; 0]);
    assert_eq!(run(&mut session, given(&b)), ["ignored"], "the cancel overtook the dispatch");
}

#[test]
fn a_newer_attempt_replaces_an_older_one() {
    let mut session = registered(2);
    let (old, new) = (key(1, 1), key(1, 2));
    session.decide(given(&old));
    assert_eq!(run(&mut session, given(&new)), ["stop", "accept", "start"]);
    assert_eq!(run(&mut session, given(&old)), ["ignored"]);
    assert_eq!(session.in_hand(), in_hand(&[&new]));
}

#[test]
fn draining_takes_no_more_work_and_says_so() {
    let mut session = registered(1);
    let (a, b) = (key(1, 1), key(2, 1));
    session.decide(given(&a));
    session.decide(given(&b));
    let effects = session.decide(Command::Drain);
    assert!(matches!(
        &effects[..],
        [Effect::Heartbeat { status: RunnerStatus::Shutting, in_hand, .. }] if *in_hand == self::in_hand(&[&a])
    ));
    assert_eq!(run(&mut session, given(&key(3, 1))), ["ignored"]);
    assert_eq!(run(&mut session, Command::StopAll), ["stop"]);
    assert_eq!(run(&mut session, ended(&a)), [""; 0]);
    assert!(!session.is_working());
}

#[test]
fn a_runner_that_reconnects_while_draining_says_so_again() {
    let mut session = registered(1);
    session.decide(Command::Drain);
    session.decide(Command::Disconnected);
    assert_eq!(kinds(&register(&mut session)), ["heartbeat"]);
}

#[test]
fn what_king_will_never_take_ends_the_runner() {
    let mut session = Session::new("a".to_owned(), "s".to_owned(), 1);
    let effects = session.decide(Command::Welcome { now: NOW });
    let [Effect::Register { req_id, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let reply = Reply::rejected(req_id, "forbidden", "needs the runner token");
    assert_eq!(run(&mut session, Command::Reply { reply, now: NOW }), ["give-up"]);

    let mut session = registered(1);
    let a = key(1, 1);
    session.decide(given(&a));
    session.decide(ended(&a));
    let reply = Reply::rejected(a.req_id(), "not_your_agent", "another one");
    assert_eq!(
        session.decide(Command::Reply { reply, now: NOW }),
        [Effect::GiveUp { why: Hopeless::Displaced }]
    );
    assert_eq!(session.in_hand(), in_hand(&[&a]), "the result stays for the next start");
}

#[test]
fn a_refused_result_of_another_agent_does_not_end_the_runner() {
    let mut session = registered(1);
    let a = key(1, 1);
    let Report::Stage(mut foreign) = report(&a) else { panic!() };
    foreign.result.agent_id = "before the rename".to_owned();
    session.decide(Command::Restored { report: Report::Stage(foreign) });
    let reply = Reply::rejected(a.req_id(), "not_your_agent", "another one");
    assert_eq!(run(&mut session, Command::Reply { reply, now: NOW }), ["forget", "refusal"]);
    assert!(session.in_hand() == InHand::default());
}

#[test]
fn a_refused_dispatch_is_a_result() {
    let mut session = registered(1);
    let a = key(1, 1);
    let refused = || Command::Refused { report: report(&a), now: NOW };
    assert_eq!(run(&mut session, refused()), ["persist", "send"]);
    assert_eq!(run(&mut session, refused()), [""; 0]);
}

/// What a user of the session may do to it.
#[derive(Debug, Clone)]
enum Step {
    Connect,
    Disconnect,
    Dispatch(u8, u32),
    Finish(usize),
    Answer(usize, ReplyStatus),
    Cancel(u8, u32),
    Tick(u64),
    Beat,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![
        Just(ReplyStatus::Accepted),
        Just(ReplyStatus::Duplicate),
        Just(ReplyStatus::Rejected),
        Just(ReplyStatus::Retry),
    ];
    prop_oneof![
        3 => Just(Step::Connect),
        2 => Just(Step::Disconnect),
        8 => (0..4_u8, 1..4_u32).prop_map(|(run, attempt)| Step::Dispatch(run, attempt)),
        6 => (0..8_usize).prop_map(Step::Finish),
        6 => (0..8_usize, status).prop_map(|(index, status)| Step::Answer(index, status)),
        2 => (0..4_u8, 1..4_u32).prop_map(|(run, attempt)| Step::Cancel(run, attempt)),
        4 => (0..90_000_u64).prop_map(Step::Tick),
        3 => Just(Step::Beat),
        1 => Just(Step::Drain),
    ]
}

/// What an observer of commands and effects knows.
#[derive(Default)]
struct Seen {
    running: BTreeSet<Key>,
    stopping: BTreeSet<Key>,
    accepted: BTreeSet<Key>,
    owed: BTreeSet<Key>,
    started_ever: BTreeSet<Key>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_promises_hold_for_every_sequence(
        capacity in 1..4_u32,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut session = Session::new("a".to_owned(), "s".to_owned(), capacity);
        let mut seen = Seen::default();
        let mut now = NOW;
        let mut drained = false;
        for step in steps {
            let commands = match step {
                Step::Connect => {
                    let effects = session.decide(Command::Welcome { now });
                    let [Effect::Register { req_id, .. }] = effects.as_slice() else {
                        return Err(TestCaseError::fail("a welcome registers"));
                    };
                    vec![Command::Reply { reply: Reply::accepted(req_id), now }]
                }
                Step::Disconnect => vec![Command::Disconnected],
                Step::Dispatch(run, attempt) => {
                    vec![Command::Dispatch { dispatch: dispatch(&key(run, attempt)), now }]
                }
                Step::Finish(index) => {
                    let busy: Vec<_> = seen.running.union(&seen.stopping).cloned().collect();
                    match busy.get(index) {
                        Some(key) => {
                            vec![Command::Ended { key: key.clone(), report: Some(report(key)), now }]
                        }
                        None => continue,
                    }
                }
                Step::Answer(index, status) => match seen.owed.iter().nth(index) {
                    Some(key) => vec![Command::Reply {
                        reply: Reply { status, ..Reply::accepted(key.req_id()) },
                        now,
                    }],
                    None => continue,
                },
                Step::Cancel(run, attempt) => vec![cancelled(&key(run, attempt))],
                Step::Tick(ms) => {
                    now = now.plus_ms(ms);
                    vec![Command::Tick { now }]
                }
                Step::Beat => vec![Command::Heartbeat],
                Step::Drain => {
                    drained = true;
                    vec![Command::Drain]
                }
            };
            for command in commands {
                // What the command alone says.
                let registering = matches!(session.link, Link::Registering { .. });
                if let Command::Ended { key, .. } = &command {
                    seen.stopping.remove(key);
                    if seen.running.remove(key) {
                        seen.owed.insert(key.clone());
                    }
                    seen.accepted.remove(key);
                }
                if let Command::Cancel { key } = &command {
                    seen.accepted.remove(key);
                    seen.owed.remove(key);
                }
                if let Command::Reply { reply, .. } = &command
                    && reply.status != ReplyStatus::Retry
                {
                    seen.owed.retain(|key| key.req_id() != reply.req_id);
                }
                let owed_before = seen.owed.clone();
                let tick = matches!(command, Command::Tick { .. });
                let answer = matches!(command, Command::Reply { .. });
                if matches!(command, Command::Drain) {
                    seen.accepted.retain(|key| seen.running.contains(key));
                }
                let dispatched = match &command {
                    Command::Dispatch { dispatch, .. } => Some(dispatch.key()),
                    _ => None,
                };
                let effects = session.decide(command);
                let mut sent = BTreeSet::new();
                for effect in &effects {
                    match effect {
                        Effect::Accept { key } => {
                            // An older attempt of the stage that had not started is dropped.
                            seen.accepted.retain(|old| {
                                old.item != key.item || old.attempt >= key.attempt
                            });
                            seen.accepted.insert(key.clone());
                        }
                        Effect::Start { dispatch } => {
                            let key = dispatch.key();
                            prop_assert!(!drained, "nothing starts while draining");
                            prop_assert!(seen.accepted.contains(&key), "confirmed before started");
                            prop_assert!(seen.started_ever.insert(key.clone()), "never twice");
                            seen.running.insert(key);
                            let busy = seen.running.len() + seen.stopping.len();
                            prop_assert!(busy <= capacity as usize, "{busy} of {capacity}");
                        }
                        Effect::Stop { key } => {
                            prop_assert!(seen.running.remove(key), "only what runs is stopped");
                            seen.accepted.remove(key);
                            seen.stopping.insert(key.clone());
                        }
                        Effect::Send { report } => {
                            let key = report.key().unwrap();
                            prop_assert!(seen.owed.contains(&key), "only what is owed is sent");
                            let req_id = key.req_id();
                            prop_assert_eq!(named_in(report), req_id);
                            sent.insert(key);
                        }
                        Effect::Persist { report } => {
                            prop_assert!(seen.owed.contains(&report.key().unwrap()));
                        }
                        Effect::Heartbeat { in_hand, .. } | Effect::Register { in_hand, .. } => {
                            let listed = keys(in_hand);
                            let expected: BTreeSet<Key> =
                                seen.accepted.union(&seen.owed).cloned().collect();
                            prop_assert_eq!(listed, expected);
                        }
                        _ => {}
                    }
                }
                if answer && registering && session.is_registered() {
                    prop_assert_eq!(&sent, &owed_before, "everything is sent after a registration");
                }
                if let Some(key) = dispatched {
                    let known = effects.iter().any(|effect| {
                        matches!(effect, Effect::Accept { key: k } | Effect::Ignored { key: k, .. } if *k == key)
                    });
                    prop_assert!(known || sent.contains(&key), "a dispatch is never unanswered");
                }
                if tick && session.is_registered() {
                    // Whatever the past, a minute later each owed result has been sent again.
                    let later = session.decide(Command::Tick { now: now.plus_ms(LONGEST_RESEND_MS) });
                    let again: BTreeSet<Key> = later
                        .iter()
                        .filter_map(|effect| match effect {
                            Effect::Send { report } => report.key(),
                            _ => None,
                        })
                        .collect();
                    prop_assert_eq!(&again, &seen.owed);
                    now = now.plus_ms(LONGEST_RESEND_MS);
                }
            }
        }
        let in_hand = keys(&session.in_hand());
        prop_assert!(seen.owed.is_subset(&in_hand));
    }
}
