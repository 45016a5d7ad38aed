//! What the tests of faults share: a king that is killed and started again, a network that fails,
//! runners whose stages do nothing, and the checker of the history that king tells.

mod chaos;
mod history;
mod proxy;
mod runner_process;
mod runners;
mod service;
mod skills;
mod tally;
mod wire;

pub use chaos::{Outcome, kill_at_random};
pub use history::{Acknowledged, Expected, Fault, History};
pub use proxy::{Proxy, Weather};
pub use runner_process::{RunnerProcess, serve as serve_as_runner};
pub use runners::{Done, Ledger, Runners};
pub use service::{Service, lines_of};
pub use skills::{SkillRunners, faults_of_skills};
pub use tally::Tally;
pub use wire::Wire;
