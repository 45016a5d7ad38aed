//! Sources that fail cost only what depends on them.

use std::net::TcpListener;

use serde_json::Value;

use crate::evo;

/// A document with one read, at this server.
fn document(server: &str) -> String {
    format!(
        r#"openapi: 3.0.3
info: {{ title: Things, version: "1" }}
servers: [{{ url: "{server}" }}]
paths:
  /things:
    get:
      operationId: listThings
      summary: Lists things
      responses:
        "200":
          description: Things
          content:
            application/json:
              schema: {{ type: array, items: {{ type: string }} }}
    post:
      operationId: addThing
      summary: Adds a thing
      responses:
        "201": {{ description: Added }}
"#
    )
}

/// The code with which a candidate was held or discarded.
fn code<'a>(report: &'a Value, name: &str) -> &'a str {
    let lists =
        ["held", "discarded", "failed"].into_iter().filter_map(|key| report[key].as_array());
    let it = lists.flatten().find(|it| it["name"] == name);
    it.unwrap_or_else(|| panic!("no {name} in {report}"))["code"].as_str().unwrap()
}

#[test]
fn what_can_not_be_reached_is_held_and_not_lost() {
    let evo = evo();
    // Closed again at once, so nobody answers there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    let nobody = evo.file("nobody.yaml", &document(&closed));
    let nowhere = evo.file("nowhere.yaml", &document("https://api.nowhere.invalid"));
    let private = evo.file("private.yaml", &document("http://127.0.0.1:9"));
    let gone = format!("{closed}/openapi.json");
    let args = [
        "--source",
        nobody.to_str().unwrap(),
        "--source",
        nowhere.to_str().unwrap(),
        "--source",
        private.to_str().unwrap(),
        "--source",
        &gone,
        "--allow-origin",
        &closed,
    ];
    let report = evo.once(&args).expect_code(0).json();
    assert_eq!(code(&report, "nobody-list-things"), "unreachable");
    assert_eq!(code(&report, "nowhere-list-things"), "unreachable");
    assert_eq!(code(&report, "private-list-things"), "origin_not_allowed");
    for source in ["nobody", "nowhere", "private"] {
        assert_eq!(code(&report, &format!("{source}-add-thing")), "write_not_allowed");
    }
    let failed = report["failed_sources"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["name"], "127-0-0-1");
    assert!(report["active"].as_array().unwrap().len() >= 5, "king's own went on: {report}");
}

#[test]
fn a_source_is_added_listed_and_looked_into() {
    let evo = evo();
    let api = evo.file("api.yaml", &document("http://127.0.0.1:9"));
    let run = |args: &[&str]| {
        let data = evo.data();
        let all: Vec<&std::ffi::OsStr> = std::iter::once("sources".as_ref())
            .chain(args.iter().take_while(|arg| **arg != "--").map(AsRef::as_ref))
            .chain(["--data".as_ref(), data.as_os_str()])
            .chain(args.iter().skip_while(|arg| **arg != "--").map(AsRef::as_ref))
            .collect();
        evo.run(&all)
    };
    let unready = run(&["add", "things", "api.yaml"]).expect_code(2);
    unready.says(&["sources.toml", "evo doctor --fix"]);
    evo.run(&["doctor", "--fix", "--data", evo.data().to_str().unwrap()]);
    let file = evo.data().join("config/sources.toml");
    let before = std::fs::read_to_string(&file).unwrap();

    let added = run(&["add", "things", "api.yaml", "--allow-origin", "http://127.0.0.1:9"]);
    assert!(added.expect_code(0).stdout.contains("evo sources test things"));
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(after.starts_with(before.trim_end()), "what stood there stays: {after}");
    let no_program = ["add", "clock", "--json", "--", "no-such-mcp-server", "--utc"];
    let added = run(&no_program).expect_code(0).json();
    assert_eq!((&added["kind"], &added["command"][1]), (&"mcp".into(), &"--utc".into()));
    let listed = run(&["list", "--json"]).expect_code(0).json();
    let of = |name: &str| {
        let all = listed["sources"].as_array().unwrap();
        all.iter().find(|source| source["name"] == name).unwrap_or_else(|| panic!("{listed}"))
    };
    assert_eq!(of("things")["location"], api.canonicalize().unwrap().to_str().unwrap());

    // What would make the file one that king refuses is not written.
    let now = std::fs::read_to_string(&file).unwrap();
    for (args, says) in [
        (&["add", "things", "api.yaml"][..], "another source is called `things` already"),
        (&["add", "Bad Name", "api.yaml"], "is no source name"),
        (&["add", "gone", "nothing.yaml"], "name a file, a folder or an address"),
        (&["add", "odd", "api.yaml", "--kind", "pdf"], "use openapi, skill_md, mcp or feed"),
        (&["add", "odd", "api.yaml", "--allow-origin", "127.0.0.1"], "allow_origins[0]"),
        (
            &["add", "odd", "api.yaml", "--kind", "openapi", "--", "program"],
            "only for a source of kind `mcp`",
        ),
    ] {
        run(args).expect_code(2).says(&[says]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), now);

    let tested = run(&["test", "things", "--json"]).expect_code(0).json();
    let yielded = &tested["sources"][0];
    assert_eq!((&yielded["count"], &yielded["measured"]), (&2.into(), &1.into()), "{tested}");
    assert_eq!(yielded["candidates"][1]["code"], "write_not_allowed", "{tested}");
    let text = run(&["test", "things"]).expect_code(0).stdout;
    assert!(text.contains("2 candidates, 1 of them would be measured"), "{text}");
    let missing = run(&["test", "clock", "--json"]).expect_code(1).json();
    let why = missing["sources"][0]["error"].as_str().unwrap();
    assert!(
        why.contains("no-such-mcp-server can't be started") && why.contains("install it"),
        "{why}"
    );
    evo.file("list.json", "{}");
    for (target, kind, says) in
        [("broken.yaml", "openapi", "line 1"), ("list.json", "openapi", "of the kind `feed`")]
    {
        evo.file("broken.yaml", "openapi: [3\n");
        let told = run(&["test", target, "--kind", kind, "--json"]).expect_code(1).json();
        let why = told["sources"][0]["error"].as_str().unwrap();
        assert!(why.contains(says), "{target} as {kind}: {why}");
    }
    run(&["test", "nowhere"]).expect_code(2).says(&["neither a configured source", "things"]);
}
