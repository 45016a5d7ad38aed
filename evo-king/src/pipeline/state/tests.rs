use proptest::prelude::*;

use evo_common::outcome::codes;

use super::*;

const AGENT: &str = "evo-building";

fn assign(now: i64) -> Command {
    Command::Assign {
        agent: AGENT.to_owned(),
        now: Timestamp(now),
        lease_ms: 20,
        timeout_ms: 100,
        boot: 1,
    }
}

fn leased(stage: PipelineStage) -> RunState {
    let waiting = RunState::start(stage, Timestamp(0));
    decide(&waiting, &assign(0), &Policy::default()).unwrap().next
}

fn report(stage: PipelineStage, attempt: u32, end: StageEnd) -> Command {
    Command::Report {
        agent: AGENT.to_owned(),
        stage,
        attempt: Attempt(attempt),
        end,
        now: Timestamp(10),
    }
}

#[test]
fn a_result_moves_the_run_to_the_next_stage() {
    let decision = decide(
        &leased(PipelineStage::Building),
        &report(PipelineStage::Building, 1, StageEnd::Advance),
        &Policy::default(),
    )
    .unwrap();
    assert_eq!(decision.next, RunState::start(PipelineStage::PreLoad, Timestamp(10)));
    assert_eq!(
        decision.effects,
        [
            Effect::CloseAttempt {
                stage: PipelineStage::Building,
                attempt: Attempt(1),
                how: AttemptEnd::Completed
            },
            Effect::StageEnded {
                stage: PipelineStage::Building,
                status: PipelineRunStatus::Completed,
                error: None
            },
        ]
    );
}

#[test]
fn answers_of_others_and_of_older_attempts_are_rejected() {
    let state = leased(PipelineStage::Building);
    let policy = Policy::default();
    let stale = decide(&state, &report(PipelineStage::Building, 2, StageEnd::Advance), &policy);
    assert_eq!(stale.unwrap_err().code(), "stale_attempt");
    let wrong = decide(&state, &report(PipelineStage::PreLoad, 1, StageEnd::Advance), &policy);
    assert_eq!(wrong.unwrap_err().code(), "stale_attempt");
    let Command::Report { stage, attempt, end, now, .. } =
        report(PipelineStage::Building, 1, StageEnd::Advance)
    else {
        unreachable!()
    };
    let thief = Command::Report { agent: "thief".to_owned(), stage, attempt, end, now };
    assert_eq!(decide(&state, &thief, &policy).unwrap_err().code(), "not_your_attempt");
}

#[test]
fn a_transient_failure_is_tried_three_times_with_growing_pauses() {
    let policy = Policy::default();
    let mut state = RunState::start(PipelineStage::Learning, Timestamp(0));
    let mut pauses = Vec::new();
    let mut now = 0;
    loop {
        state = decide(&state, &assign(now), &policy).unwrap().next;
        let (stage, attempt) = state.at().unwrap();
        let command = Command::Report {
            agent: AGENT.to_owned(),
            stage,
            attempt,
            end: StageEnd::Failed { error: "connection reset".to_owned(), transient: true },
            now: Timestamp(now),
        };
        state = decide(&state, &command, &policy).unwrap().next;
        match &state {
            RunState::Waiting { not_before, .. } => {
                pauses.push(not_before.0 - now);
                assert_eq!(
                    decide(&state, &assign(now), &policy),
                    Err(Rejection::NothingToDo),
                    "not before the pause is over"
                );
                now = not_before.0;
            }
            other => {
                assert_eq!(other.status(), PipelineRunStatus::Failed);
                break;
            }
        }
    }
    assert_eq!(pauses, [1_000, 4_000]);
}

#[test]
fn a_lasting_failure_ends_the_run_at_once() {
    let end = StageEnd::Failed { error: "broken".to_owned(), transient: false };
    let command = report(PipelineStage::Building, 1, end);
    let decision = decide(&leased(PipelineStage::Building), &command, &Policy::default()).unwrap();
    let RunState::Ended { status, outcome: Some(outcome) } = decision.next else { panic!() };
    assert_eq!(status, PipelineRunStatus::Failed);
    assert_eq!(outcome, Outcome::failed(codes::STAGE_FAILED, "stage building: broken"));
}

#[test]
fn a_silent_runner_loses_its_lease_and_a_slow_one_its_deadline() {
    let policy = Policy::default();
    let accept = Command::Accept {
        agent: AGENT.to_owned(),
        stage: PipelineStage::Evaluation,
        attempt: Attempt(1),
    };
    let state = decide(&leased(PipelineStage::Evaluation), &accept, &policy).unwrap().next;
    let tick = |now| Command::Tick { now: Timestamp(now), boot: 1 };
    assert_eq!(decide(&state, &tick(19), &policy), Err(Rejection::NothingToDo));
    let lost = decide(&state, &tick(20), &policy).unwrap();
    let RunState::Waiting { attempt, tries, .. } = lost.next else { panic!() };
    assert_eq!((attempt, tries), (Attempt(2), Tries { lost: 1, ..Tries::default() }));

    let extend = Command::Extend {
        agent: AGENT.to_owned(),
        stage: PipelineStage::Evaluation,
        attempt: Attempt(1),
        lease_until: Timestamp(500),
    };
    let extended = decide(&state, &extend, &policy).unwrap().next;
    assert_eq!(extended.due_at(), Some(("deadline", Timestamp(100))));
    assert_eq!(decide(&extended, &tick(99), &policy), Err(Rejection::NothingToDo));
    let late = decide(&extended, &tick(100), &policy).unwrap();
    assert!(matches!(late.next, RunState::Waiting { tries: Tries { failed: 1, lost: 0, .. }, .. }));
    assert!(late.effects.iter().any(|e| matches!(e, Effect::CancelAttempt { .. })));
}

#[test]
fn a_dispatch_that_never_arrives_is_given_up() {
    let policy = Policy::default();
    let mut state = RunState::start(PipelineStage::Building, Timestamp(0));
    for _ in 0..policy.max_undelivered {
        state = decide(&state, &assign(0), &policy).unwrap().next;
        state =
            decide(&state, &Command::Tick { now: Timestamp(20), boot: 1 }, &policy).unwrap().next;
        if let RunState::Waiting { not_before, .. } = &mut state {
            *not_before = Timestamp(0);
        }
    }
    let RunState::Ended { outcome: Some(outcome), .. } = state else { panic!("{state:?}") };
    assert_eq!(outcome.code, codes::STAGE_FAILED);
}

#[test]
fn a_runner_that_went_down_with_king_is_not_to_blame() {
    let policy = Policy::default();
    let mut state = leased(PipelineStage::Learning);
    for boot in 2..30 {
        let command = Command::RunnerLost { agent: AGENT.to_owned(), now: Timestamp(5), boot };
        state = decide(&state, &command, &policy).unwrap().next;
        state = decide(&state, &assign(5), &policy).unwrap().next;
    }
    assert!(matches!(
        state,
        RunState::Leased { attempt: Attempt(29), tries: Tries { lost: 0, .. }, .. }
    ));
}

#[test]
fn a_cycle_ends_with_its_last_child() {
    let policy = Policy::default();
    let mut state = RunState::FannedOut { open: 2 };
    state = decide(&state, &Command::ChildEnded, &policy).unwrap().next;
    assert_eq!(state, RunState::FannedOut { open: 1 });
    let last = decide(&state, &Command::ChildEnded, &policy).unwrap();
    assert_eq!(last.next.status(), PipelineRunStatus::Completed);
    assert_eq!(last.effects, [Effect::RunEnded]);
}

fn stages() -> impl Strategy<Value = PipelineStage> {
    prop::sample::select(PipelineStage::ALL.to_vec())
}

fn ends() -> impl Strategy<Value = StageEnd> {
    prop_oneof![
        Just(StageEnd::Advance),
        (0_u32..3).prop_map(|open| StageEnd::FanOut { open }),
        Just(StageEnd::Finish(Outcome::active("good"))),
        any::<bool>().prop_map(|transient| StageEnd::Failed { error: "e".to_owned(), transient }),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let agent = || prop::sample::select(vec![AGENT.to_owned(), "other".to_owned()]);
    let now = || (0_i64..400).prop_map(Timestamp);
    let attempt = || (1_u32..5).prop_map(Attempt);
    prop_oneof![
        4 => (agent(), now()).prop_map(|(agent, now)| Command::Assign {
            agent, now, lease_ms: 20, timeout_ms: 100, boot: 1
        }),
        2 => (agent(), stages(), attempt())
            .prop_map(|(agent, stage, attempt)| Command::Accept { agent, stage, attempt }),
        2 => (agent(), stages(), attempt(), now()).prop_map(|(agent, stage, attempt, lease_until)| {
            Command::Extend { agent, stage, attempt, lease_until }
        }),
        6 => (agent(), stages(), attempt(), ends(), now()).prop_map(
            |(agent, stage, attempt, end, now)| Command::Report { agent, stage, attempt, end, now }
        ),
        1 => (agent(), now(), 1_i64..3)
            .prop_map(|(agent, now, boot)| Command::RunnerLost { agent, now, boot }),
        2 => (now(), 1_i64..3).prop_map(|(now, boot)| Command::Tick { now, boot }),
        1 => Just(Command::ChildEnded),
        1 => Just(Command::Cancel { reason: "enough".to_owned() }),
    ]
}

proptest! {
    /// Whatever comes in whatever order: an ended run stays as it is, `RunEnded` comes exactly
    /// with the end, attempts never go back within a stage, and the same report is never applied
    /// twice.
    #[test]
    fn every_run_ends_once_and_no_report_is_applied_twice(
        start in stages(), commands in prop::collection::vec(commands(), 0..80)
    ) {
        let policy = Policy::default();
        let mut state = RunState::start(start, Timestamp(0));
        let mut ended = 0;
        for command in commands {
            let Ok(decision) = decide(&state, &command, &policy) else { continue };
            let is_end = decision.effects.contains(&Effect::RunEnded);
            prop_assert_eq!(is_end, matches!(decision.next, RunState::Ended { .. }));
            ended += u32::from(is_end);
            if let (Some((before, old)), Some((after, new))) = (state.at(), decision.next.at())
                && before == after
            {
                prop_assert!(new >= old);
            }
            if matches!(command, Command::Report { .. }) {
                prop_assert!(decide(&decision.next, &command, &policy).is_err());
            }
            state = decision.next;
        }
        prop_assert!(ended <= 1);
    }

    /// A state survives the database.
    #[test]
    fn states_survive_as_json(start in stages(), commands in prop::collection::vec(commands(), 0..20)) {
        let mut state = RunState::start(start, Timestamp(0));
        for command in commands {
            if let Ok(decision) = decide(&state, &command, &Policy::default()) {
                state = decision.next;
            }
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<RunState>(&text).unwrap(), &state);
        }
    }
}
