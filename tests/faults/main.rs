//! What happens when the process dies at the worst moment.

mod kill;
