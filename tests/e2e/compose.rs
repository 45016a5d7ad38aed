//! A request that nothing alone answers, and one that something in use answers already.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use evo_harness::eventually;
use serde_json::{Value, json};

use crate::evo;

/// The value of a parameter in the first line of a request.
fn parameter<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let query = line.split(' ').nth(1)?.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn answer(line: &str) -> Option<Value> {
    if line.starts_with("GET /cities?") {
        let name = parameter(line, "name")?;
        let place = json!({"lat": name.len(), "lon": name.len() * 10});
        return Some(json!([{"name": name, "place": place}]));
    }
    let (lat, lon) = (parameter(line, "lat")?, parameter(line, "lon")?);
    let (lat, lon): (i64, i64) = (lat.parse().ok()?, lon.parse().ok()?);
    Some(json!({"now": {"degrees": lat + lon}, "station": "x"}))
}

/// Cities and their weather, on loopback.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let one = |mut stream: TcpStream| {
        let mut seen = Vec::new();
        let mut part = [0; 4_096];
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(read) if read > 0 => seen.extend_from_slice(&part[..read]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let found = answer(text.lines().next().unwrap_or_default());
        let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
        let body = found.unwrap_or(json!({"error": "unknown"})).to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap_or_default();
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || one(stream));
        }
    });
    address
}

fn document(server: &str) -> String {
    let number = json!({"type": "integer"});
    let parameter = |name: &str, schema: &Value, example: Value| json!({"name": name, "in": "query", "required": true, "schema": schema, "example": example});
    let object = |fields: Value| {
        let required: Vec<&String> = fields.as_object().unwrap().keys().collect();
        json!({"type": "object", "required": required, "properties": fields})
    };
    let place = object(json!({"lat": number, "lon": number}));
    let city = object(json!({"name": {"type": "string"}, "place": place}));
    let weather =
        object(json!({"now": object(json!({"degrees": number})), "station": {"type": "string"}}));
    let answers = |schema: Value| json!({"200": {"description": "x", "content": {"application/json": {"schema": schema}}}});
    json!({
        "openapi": "3.0.3",
        "info": {"title": "Town", "version": "1"},
        "servers": [{"url": server}],
        "paths": {
            "/cities": {"get": {
                "operationId": "findCity", "summary": "Finds a city by its name.",
                "parameters": [parameter("name", &json!({"type": "string"}), json!("Rome"))],
                "responses": answers(json!({"type": "array", "items": city})),
            }},
            "/weather": {"get": {
                "operationId": "weatherAt", "summary": "Tells the weather at a place.",
                "parameters": [
                    parameter("lat", &number, json!(4)), parameter("lon", &number, json!(40)),
                ],
                "responses": answers(weather),
            }},
        },
    })
    .to_string()
}

#[test]
fn skills_in_use_answer_requests_alone_and_one_after_the_other() {
    let evo = evo();
    let server = serve();
    let api = evo.file("town.json", &document(&server)).display().to_string();
    let sources = format!(
        "[[sources]]\nname = \"town\"\nkind = \"openapi\"\nlocation = {api:?}\nallow_origins = [{server:?}]\n"
    );
    evo.file("data/config/sources.toml", &sources);
    evo.file("data/config/king.toml", "sitting_gap_ms = 20\n");
    let mut running = evo.up::<&str>(&[]);
    evo.instance(&mut running);
    eventually("both skills are in use", Duration::from_secs(120), || {
        let listed = evo.run(&["skill", "list", "--status", "active", "--json"]).json();
        (listed["count"] == 2).then_some(())
    });
    let ask = |text: &str, file: &str, example: &dyn Fn(&str) -> Value| {
        let cities = ["Rome", "Oslo", "Berlin", "Ulm", "Lagos", "Reykjavik"];
        let lines: Vec<String> = cities.iter().map(|city| example(city).to_string()).collect();
        let file = evo.file(file, &lines.join("\n")).display().to_string();
        evo.run(&["learn", text, "--examples", &file, "--wait", "--json"]).expect_code(0).json()
    };

    // Nothing alone knows the degrees in a city.
    let asked = ask(
        "Tell the degrees in a city",
        "degrees.jsonl",
        &|city| json!({"input": {"city": city}, "output": city.len() * 11}),
    );
    assert_eq!(asked["status"], "answered", "{asked}");
    let name = asked["answer"]["skill"].as_str().unwrap();
    let shown = evo.run(&["skill", "show", name, "--json"]).expect_code(0).json();
    assert_eq!(shown["status"], "active", "{shown}");
    let version = &shown["versions"][0];
    assert_eq!(version["endpoints"], json!(["skill town-find-city", "skill town-weather-at"]));
    assert_eq!(version["evidence"]["holdout"], json!({"passed": 20, "total": 20}), "{version}");
    let ran = evo.run(&["skill", "run", name, "--set", "city=Kyiv", "--json"]).expect_code(0);
    assert!(ran.stdout.contains("44"), "{ran}");

    // A second request for what is there by now changes no skill.
    let asked = ask(
        "How warm is it in some town?",
        "warm.jsonl",
        &|city| json!({"input": {"city": city}, "output": city.len() * 11}),
    );
    assert_eq!((&asked["status"], &asked["code"]), (&json!("answered"), &json!("answers")));
    assert_eq!(asked["answer"]["skill"], name, "{asked}");
    let after = evo.run(&["skill", "show", name, "--json"]).expect_code(0).json();
    assert_eq!(after["fence"], shown["fence"]);
    assert_eq!(after["versions"].as_array().unwrap().len(), 1, "{after}");
    assert_eq!(running.exited(), None, "{}", running.stderr());
}
