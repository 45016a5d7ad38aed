//! An MCP client that nobody here wrote lists and calls our skills, over HTTP and over standard input
//! and output.

use std::time::Duration;

use crate::{environment, evo, file};

const PATIENCE: Duration = Duration::from_secs(180);
/// A skill of king's own document.
const SKILL: &str = "evo-king-get-health";

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
    ];
    python.start(&file("mcp_client.py"), &args).line_with("all is well", PATIENCE);

    let tree = evo.folder().join("tree");
    let folder = tree.to_str().unwrap();
    let exported = evo.run(&["skill", "export", folder, "--json"]).expect_code(0).json();
    let text = std::fs::read_to_string(tree.join(SKILL).join("SKILL.md")).unwrap();
    assert!(text.starts_with(&format!("---\nname: \"{SKILL}\"\n")), "{text}");
    evo.run(&["skill", "export", folder]).expect_code(2).says(&["not empty"]);
    let imported = evo.run(&["skill", "import", folder, "--json"]).expect_code(0).json();
    assert_eq!(imported["count"], exported["skills"]);
    // Their names belong to the skills that they were made from.
    assert_eq!(imported["open"], 0, "{imported}");
    evo.file(
        "new/greeter/SKILL.md",
        "---\nname: greeter\ndescription: Greets.\n---\n\n# Greeter\n",
    );
    let new = evo.folder().join("new");
    let imported = evo.run(&["skill", "import", new.to_str().unwrap(), "--json"]).expect_code(0);
    assert_eq!(imported.json()["open"], 1);
    let greeter = evo.run(&["skill", "show", "greeter", "--json"]).expect_code(0).json();
    assert_eq!(greeter["source"], "imports");
    assert_ne!(greeter["status"], "active");
}
