//! Each layer is for something: without it, and without those that do the same, attacks succeed.

use evo_agents::sandbox::{Isolation, policy::Layer};

use crate::{
    attacks::Attack,
    suite::{Bench, Outcome},
    world::World,
};

#[tokio::test]
async fn without_its_layers_the_sandbox_is_open() {
    use Layer::{
        Landlock, NoNewPrivileges, OwnNetwork, OwnProcesses, OwnUser, PrivateRoot, ResourceLimits,
        Seccomp, Watch,
    };
    let bench = Bench::new().await;
    let ways = bench.ways().await;
    let Some(isolation) = ways.into_iter().find(|way| *way != Isolation::Plain) else {
        eprintln!("no namespaces here: nothing to leave out");
        return;
    };
    let files: &[Layer] = &[PrivateRoot, Landlock];
    let others: &[Layer] = &[PrivateRoot, Landlock, OwnProcesses, OwnUser, Seccomp];
    let network: &[Layer] = &[OwnNetwork, PrivateRoot, Landlock, Seccomp];
    let calls: &[Layer] = &[Seccomp, NoNewPrivileges];
    let limits: &[Layer] = &[ResourceLimits, Watch];
    for (off, module, name) in [
        (files, "files", "read_outside"),
        (files, "files", "list_outside"),
        (files, "files", "write_outside"),
        (files, "files", "symlink"),
        (files, "files", "tar_path"),
        (others, "processes", "list_processes"),
        (others, "processes", "kill"),
        (network, "network", "ipv4"),
        (network, "network", "udp"),
        (network, "network", "unix"),
        (network, "network", "abstract"),
        (calls, "kernel", "system_v"),
        (limits, "processes", "fork_bomb"),
        (limits, "processes", "thread_bomb"),
        (limits, "processes", "memory"),
        (limits, "processes", "open_files"),
        (&[Watch], "processes", "memory_of_many"),
    ] {
        let world = World::new();
        let attack = Attack { module, name };
        let outcome = bench.run(isolation, off, attack, "attack", &world).await;
        assert!(
            matches!(outcome, Outcome::Succeeded(_)),
            "{module}/{name} without {off:?}: {outcome}"
        );
        let outcome = bench.run(isolation, &[], attack, "attack", &world).await;
        assert!(matches!(outcome, Outcome::Blocked(_)), "{module}/{name}: {outcome}");
    }
}
