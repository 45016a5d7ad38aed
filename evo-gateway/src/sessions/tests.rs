use std::collections::BTreeMap;

use tokio::time::timeout;

use super::*;
use config::SessionCommand;

fn sessions(max: usize, idle_seconds: u64, commands: &[(&str, &str)]) -> Arc<Sessions> {
    let command = |script: &str| SessionCommand {
        command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        folder: Some("/".into()),
        env: BTreeMap::from([("OWN".to_owned(), "own".to_owned())]),
    };
    let commands =
        commands.iter().map(|(name, script)| ((*name).to_owned(), command(script))).collect();
    let config = SessionsConfig { enabled: true, max, idle_seconds, commands };
    Sessions::new(config, vec![("PATH".into(), "/usr/bin:/bin".into())])
}

fn wanted(command: &str) -> Wanted {
    Wanted { command: command.to_owned(), ..Wanted::default() }
}

/// Waits for a line or a status that holds this.
async fn told(follower: &mut broadcast::Receiver<Told>, what: &str) -> Told {
    let wait = async {
        loop {
            let told = follower.recv().await.unwrap();
            if told.payload.to_string().contains(what) {
                return told;
            }
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what:?} was not told"))
}

#[tokio::test]
async fn a_program_has_a_terminal_of_its_own() {
    let script = "tty >/dev/null && echo \"is a tty $(stty size) $TERM $OWN $(pwd)\"; read line; \
                  echo \"read $line\"; read -r never";
    let sessions = sessions(2, 60, &[("one", script)]);
    // As in the gateway itself, which handles it: what is handled is at its default again in a program that
    // is started, while what is ignored, as in a job in the background, would stay so.
    drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap());
    let mut follower = sessions.follow();
    let mut joined = String::new();
    let wanted = Wanted { rows: Some(30), columns: Some(100), ..wanted("one") };
    let id = sessions.create(wanted, |id| id.clone_into(&mut joined)).unwrap();
    assert!(id.starts_with("evo-gw-one-") && id == joined, "{id}");
    let line = told(&mut follower, "is a tty").await;
    assert_eq!(line.payload["line"], "is a tty 30 100 xterm-256color own /");
    assert_eq!(line.payload["is_final"], false);
    sessions.input(&id, "hello\n").unwrap();
    told(&mut follower, "read hello").await;
    let screen = sessions.capture(&id).unwrap();
    assert!(screen.contains("hello\nread hello"), "{screen:?}");
    sessions.keys(&id, "C-c").unwrap();
    let last = told(&mut follower, "[ended").await;
    assert_eq!(last.payload["is_final"], true);
    told(&mut follower, "exited").await;
    assert_eq!(sessions.list()[0]["status"], "exited");
    assert!(sessions.capture(&id).is_ok(), "it can be looked at for a while");
    assert_eq!(sessions.input(&id, "x").unwrap_err().code, "session_ended");
}

#[tokio::test]
async fn only_named_commands_run_and_only_so_many() {
    let sessions = sessions(1, 60, &[("one", "sleep 300"), ("two", "exit 0")]);
    for name in ["", "three", "/bin/sh", "one;two"] {
        let refused = sessions.create(wanted(name), |_| {}).unwrap_err();
        assert_eq!(refused.code, "unknown_command", "{name}");
    }
    let wide = Wanted { columns: Some(0), ..wanted("one") };
    assert_eq!(sessions.create(wide, |_| {}).unwrap_err().code, "invalid_size");
    let mut follower = sessions.follow();
    let owned = Wanted { owner: Some("socket".to_owned()), ..wanted("one") };
    let id = sessions.create(owned, |_| {}).unwrap();
    assert_eq!(sessions.create(wanted("two"), |_| {}).unwrap_err().code, "too_many_sessions");
    assert_eq!(sessions.keys(&id, "Nothing").unwrap_err().code, "invalid_keys");
    assert_eq!(sessions.kill("other").unwrap_err().code, "session_not_found");
    sessions.left("another socket");
    sessions.left("socket");
    told(&mut follower, "\"killed\"").await;
    sessions.create(wanted("two"), |_| {}).unwrap();
    told(&mut follower, "status 0").await;
}

#[tokio::test]
async fn a_session_in_which_nothing_happens_ends_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    let sessions = sessions(1, 1, &[("one", &script)]);
    let mut follower = sessions.follow();
    sessions.create(wanted("one"), |_| {}).unwrap();
    told(&mut follower, "\"idle\"").await;
    let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
    };
    for _ in 0..100 {
        if !runs() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("what the program started is still there");
}
