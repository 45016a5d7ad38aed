//! What clients of the original call, hear and read, against the whole of Evo.

use std::time::Duration;

use crate::{evo, file, python};

const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn every_route_and_event_of_the_original_is_there_with_its_keys() {
    let Some(python) = python() else { return };
    let evo = evo();
    evo.file("data/config/king.toml", "[debug.commands]\nhello = [\"/bin/echo\", \"hello\"]\n");
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let args = [instance.king, evo.token("operator"), evo.token("runner")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    python.start(&file("surface.py"), &args).line_with("all is well", PATIENCE);
}
