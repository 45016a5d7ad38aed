//! The rooms of tasks that a connection is in.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use evo_common::messages::events;
use socketioxide::extract::SocketRef;

use crate::state::King;

/// Most tasks that one connection follows at the same time; the oldest is left for a newer one.
const MOST: usize = 1_000;

/// What a connection follows, oldest first.
#[derive(Clone, Default)]
pub(super) struct Followed(Arc<Mutex<VecDeque<String>>>);

impl Followed {
    fn tasks(&self) -> MutexGuard<'_, VecDeque<String>> {
        // A panic while holding the lock can't leave a list half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room of a task.
pub(super) fn of_task(task_id: &str) -> String {
    format!("{}{task_id}", events::ROOM_TASK_PREFIX)
}

/// Follows a task until the connection ends.
pub(super) fn follow(king: &King, socket: &SocketRef, task_id: &str) {
    let Some(followed) = socket.extensions.get::<Followed>() else { return };
    {
        let mut tasks = followed.tasks();
        if tasks.iter().any(|known| known == task_id) {
            return;
        }
        tasks.push_back(task_id.to_owned());
        king.tasks.follow(task_id);
        socket.join(of_task(task_id));
        if tasks.len() > MOST
            && let Some(oldest) = tasks.pop_front()
        {
            socket.leave(of_task(&oldest));
            king.tasks.unfollow(&oldest);
        }
    }
    // It may have ended meanwhile, and nobody will ask again.
    if !socket.connected() {
        leave_all(king, socket);
    }
}

/// The connection has ended.
pub(super) fn leave_all(king: &King, socket: &SocketRef) {
    let Some(followed) = socket.extensions.get::<Followed>() else { return };
    for task_id in mem::take(&mut *followed.tasks()) {
        king.tasks.unfollow(&task_id);
    }
}
