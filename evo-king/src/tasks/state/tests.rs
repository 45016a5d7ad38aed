//! Every word of the machine, and what holds after any sequence of commands.

use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy { max_tries: 3, backoff_ms: 100 };

fn at(ms: i64) -> Timestamp {
    Timestamp(ms)
}

fn assign(agent: &str, now: i64) -> Command {
    Command::Assign { agent: agent.to_owned(), now: at(now), lease_ms: 100, timeout_ms: 1_000 }
}

fn report(agent: &str, attempt: u32, end: AttemptEnd, now: i64) -> Command {
    Command::Report { agent: agent.to_owned(), attempt: Attempt(attempt), end, now: at(now) }
}

fn failed(transient: bool) -> AttemptEnd {
    AttemptEnd::Failed { error: "no".to_owned(), transient }
}

/// The state after these commands, all of which must be taken.
fn after(commands: &[Command]) -> TaskState {
    commands.iter().fold(TaskState::waiting(at(0)), |state, command| {
        decide(&state, command, &POLICY).unwrap_or_else(|e| panic!("{command:?}: {e}")).next
    })
}

#[test]
fn a_task_is_done_once_by_whom_it_was_given_to() {
    let leased = after(&[assign("a", 0)]);
    assert_eq!(leased.status(), TaskStatus::InProgress);
    assert_eq!(leased.due_at(), Some(at(100)));
    let report_of = |agent, attempt| report(agent, attempt, AttemptEnd::Completed, 10);
    let refused = |state: &TaskState, command| decide(state, &command, &POLICY).unwrap_err().code();
    assert_eq!(refused(&leased, report_of("b", 1)), "not_your_attempt");
    assert_eq!(refused(&leased, report_of("a", 2)), "stale_attempt");
    let done = decide(&leased, &report_of("a", 1), &POLICY).unwrap();
    assert_eq!(done.effects, [Effect::Ended { end: End::Completed, error: None }]);
    assert_eq!((done.next.status(), done.next.phase()), (TaskStatus::Completed, "evaluating"));
    assert_eq!(refused(&done.next, report_of("a", 1)), "task_ended");
    let seen = decide(&done.next, &Command::Summarised, &POLICY).unwrap().next;
    assert_eq!((seen.status(), seen.phase()), (TaskStatus::Evaluated, "ended"));
}

#[test]
fn what_may_pass_is_tried_again_and_given_up_in_the_end() {
    let waiting = after(&[assign("a", 0), report("a", 1, failed(true), 50)]);
    assert_eq!(waiting.status(), TaskStatus::Recovering);
    assert_eq!(decide(&waiting, &assign("b", 149), &POLICY), Err(Rejection::NothingToDo));
    let lost = Command::RunnerLost { agent: "b".to_owned(), now: at(200) };
    let commands = [assign("a", 0), report("a", 1, failed(true), 50), assign("b", 150), lost];
    assert_eq!(
        after(&commands),
        TaskState::Waiting { attempt: Attempt(3), tries: 2, not_before: at(600) }
    );
    let silent = [&commands[..], &[assign("a", 600), Command::Tick { now: at(700) }]].concat();
    let ended = after(&silent);
    assert_eq!(ended.status(), TaskStatus::Failed);
    // By hand it may begin again, with a number that was never given out.
    let again =
        decide(&ended, &Command::Set { status: TaskStatus::Pending, now: at(900) }, &POLICY);
    assert_eq!(
        again.unwrap().next,
        TaskState::Waiting { attempt: Attempt(4), tries: 0, not_before: at(900) }
    );
    assert_eq!(
        after(&[assign("a", 0), report("a", 1, failed(false), 5)]).status(),
        TaskStatus::Failed
    );
}

#[test]
fn a_sign_of_life_extends_the_lease_up_to_the_deadline() {
    let hold = |until| Command::Hold {
        agent: "a".to_owned(),
        attempt: Attempt::FIRST,
        lease_until: at(until),
    };
    assert_eq!(after(&[assign("a", 0), hold(300)]).due_at(), Some(at(300)));
    assert_eq!(after(&[assign("a", 0), hold(300), hold(200)]).due_at(), Some(at(300)));
    let last = after(&[assign("a", 0), hold(5_000)]);
    assert_eq!(last.due_at(), Some(at(1_000)));
    let late = decide(&last, &Command::Tick { now: at(1_000) }, &POLICY).unwrap();
    assert_eq!(late.next.status(), TaskStatus::Failed);
    assert!(late.effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. })));
}

#[test]
fn a_split_task_stops_its_runner_and_ends_with_its_parts() {
    let leased = after(&[assign("a", 0)]);
    let split = decide(&leased, &Command::Split, &POLICY).unwrap();
    assert!(matches!(&split.effects[..], [Effect::Cancel { agent, .. }] if agent == "a"));
    assert_eq!(split.next.status(), TaskStatus::Decomposed);
    assert!(decide(&split.next, &Command::Split, &POLICY).is_err());
    let late = report("a", 1, AttemptEnd::Completed, 20);
    assert_eq!(decide(&split.next, &late, &POLICY).unwrap_err().code(), "stale_attempt");
    let done = decide(&split.next, &Command::PartsEnded { end: End::Failed }, &POLICY).unwrap();
    assert_eq!(done.next.status(), TaskStatus::Failed);
}

#[test]
fn words_that_are_kings_own_are_refused() {
    for status in [TaskStatus::Recovering, TaskStatus::Decomposed] {
        let command = Command::Set { status, now: at(0) };
        assert_eq!(
            decide(&TaskState::by_hand(), &command, &POLICY),
            Err(Rejection::KingsOwn(status))
        );
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let agent = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    let moment = || (0..3_000_i64).prop_map(Timestamp);
    let attempt = || (1..6_u32).prop_map(Attempt);
    let end = prop_oneof![Just(AttemptEnd::Completed), any::<bool>().prop_map(failed),];
    prop_oneof![
        3 => (agent(), moment()).prop_map(|(agent, now)| Command::Assign {
            agent, now, lease_ms: 100, timeout_ms: 1_000,
        }),
        1 => (agent(), attempt(), moment())
            .prop_map(|(agent, attempt, lease_until)| Command::Hold { agent, attempt, lease_until }),
        2 => (agent(), attempt(), end, moment())
            .prop_map(|(agent, attempt, end, now)| Command::Report { agent, attempt, end, now }),
        1 => (agent(), moment()).prop_map(|(agent, now)| Command::RunnerLost { agent, now }),
        1 => moment().prop_map(|now| Command::Tick { now }),
        1 => (proptest::sample::select(&TaskStatus::ALL[..]), moment())
            .prop_map(|(status, now)| Command::Set { status, now }),
        1 => Just(Command::Split),
        1 => Just(Command::PartsEnded { end: End::Completed }),
        1 => Just(Command::Summarised),
    ]
}

proptest! {
    /// Attempt numbers are given out once, an ended task is only begun again by hand, and
    /// whoever has a lease that ends without its own report is told to stop or is known as gone.
    #[test]
    fn attempts_are_unique_and_ends_are_ends(commands in proptest::collection::vec(any_command(), 0..60)) {
        let mut state = TaskState::waiting(at(0));
        let mut given_out = std::collections::BTreeSet::new();
        for command in commands {
            let before = state.clone();
            let Ok(decision) = decide(&before, &command, &POLICY) else { continue };
            state = decision.next;
            if decision.effects.contains(&Effect::Dispatch) {
                let (_, attempt) = state.lease().unwrap();
                prop_assert!(given_out.insert(attempt), "{} was given out twice", attempt);
            }
            if before.end().is_some() && state.end().is_none() {
                let by_hand = matches!(
                    command,
                    Command::Set { status: TaskStatus::Pending, .. } | Command::Split
                );
                prop_assert!(by_hand, "{:?} began an ended task again", command);
            }
            let told = decision.effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. }));
            let knows = matches!(command, Command::Report { .. } | Command::RunnerLost { .. });
            if before.lease().is_some() && state.lease() != before.lease() {
                prop_assert!(told || knows, "{:?} took an attempt away silently", command);
            }
            prop_assert_eq!(state.status().has_ended(), state.end().is_some());
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<TaskState>(&text).unwrap(), state.clone());
        }
    }
}
