//! An MCP client that nobody here wrote lists and calls our skills, over HTTP and over standard input
//! and output.

use std::time::Duration;

use crate::{environment, evo, file};

const PATIENCE: Duration = Duration::from_secs(180);
/// Skills of king's own document.
const SKILL: &str = "evo-king-get-health";
const OTHER: &str = "evo-king-get-stats";

#[test]
fn the_sdk_lists_calls_and_hears_of_changes_over_http_and_stdio() {
    let Some(python) = environment("mcp", &file("requirements-mcp.txt"), None) else { return };
    let evo = evo();
    // A cycle that ends with skills in use.
    let _learned = evo.once::<&str>(&[]).expect_code(0);
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let (data, home) = (evo.data(), evo.folder());
    let [operator, invoke, viewer] = ["operator", "invoke", "viewer"].map(|scope| evo.token(scope));
    let args = [
        &*instance.king,
        &*operator,
        &*invoke,
        &*viewer,
        env!("CARGO_BIN_EXE_evo"),
        data.to_str().unwrap(),
        home.to_str().unwrap(),
        SKILL,
        OTHER,
    ];
    python.start(&file("mcp_client.py"), &args).line_with("all is well", PATIENCE);
}
