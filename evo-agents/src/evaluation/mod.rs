//! What Evaluation measures and how: whether an answer is right ([`oracle`]), trials of cases
//! ([`trials`]), comparison with the version in use ([`compare`]) and with other skills
//! ([`novelty`]).

pub mod compare;
pub mod novelty;
pub mod oracle;
pub mod trials;
