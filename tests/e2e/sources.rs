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
