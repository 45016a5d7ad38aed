//! A small server of the remote protocol (Hrana 3 over HTTP) over a real database file. A stream is
//! a connection of its own; its baton changes with every answer, and an idle one is forgotten.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use libsql::{Connection, Value as Cell};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};

use crate::store::Database;

const TOKEN: &str = "the token";

/// The server. It ends when it is dropped.
pub(crate) struct Stub {
    address: SocketAddr,
    server: Arc<Server>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

struct Server {
    database: libsql::Database,
    /// How long a stream may be idle.
    idle: Duration,
    streams: Mutex<Streams>,
    /// The start of a statement at which the server fails, once.
    fault: Mutex<Option<String>>,
}

#[derive(Default)]
struct Streams {
    /// By baton. One that is in use is not here.
    open: HashMap<String, (Connection, Instant)>,
    batons: u64,
}

type Answer<T> = Result<T, (StatusCode, Json<Value>)>;

impl Stub {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::forgetting_after(folder, Duration::from_secs(10)).await
    }

    pub(crate) async fn forgetting_after(folder: &Path, idle: Duration) -> Self {
        let database = libsql::Builder::new_local(folder.join("server.db")).build().await.unwrap();
        let (streams, fault) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Server { database, idle, streams, fault });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut stub = Self { address, server, running: None };
        stub.resume();
        stub
    }

    /// Listens, on the port of the first time.
    pub(crate) fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v3/pipeline", post(pipeline))
            .route("/v3/cursor", post(cursor))
            .with_state(self.server.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    stopped = stopped => stopped.unwrap(),
                }
            });
            runtime.shutdown_background();
        });
        self.running = Some((stop, thread));
    }

    /// The server is gone, and with it every stream.
    pub(crate) fn halt(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.send(()).unwrap();
            thread.join().unwrap();
            self.server.streams.lock().unwrap().open.clear();
        }
    }

    pub(crate) fn database(&self) -> Database {
        self.database_with(TOKEN)
    }

    pub(crate) fn database_with(&self, token: &str) -> Database {
        Database::Remote { url: format!("http://{}", self.address), token: token.into() }
    }

    /// Streams that are open and idle.
    pub(crate) fn streams(&self) -> usize {
        self.server.streams.lock().unwrap().open.len()
    }

    /// The server will fail at the next statement that starts like this.
    pub(crate) fn fail_at(&self, statement: &str) {
        *self.server.fault.lock().unwrap() = Some(statement.to_owned());
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Server {
    /// The stream that a request goes on with, or a new one.
    async fn take(&self, headers: &HeaderMap, request: &Value) -> Answer<Connection> {
        if headers["authorization"] != format!("Bearer {TOKEN}") {
            return Err(refusal(StatusCode::UNAUTHORIZED, "unauthorized"));
        }
        if let Some(baton) = request["baton"].as_str() {
            let mut streams = self.streams.lock().unwrap();
            streams.open.retain(|_, (_, used)| used.elapsed() < self.idle);
            let stream = streams.open.remove(baton).map(|(connection, _)| connection);
            return stream.ok_or_else(|| {
                refusal(StatusCode::NOT_FOUND, &format!("stream not found: {baton}"))
            });
        }
        let connection = self.database.connect().unwrap();
        connection
            .execute_batch("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL;")
            .await
            .unwrap();
        Ok(connection)
    }

    fn put_back(&self, connection: Connection) -> String {
        let mut streams = self.streams.lock().unwrap();
        streams.batons += 1;
        let baton = format!("baton {}", streams.batons);
        streams.open.insert(baton.clone(), (connection, Instant::now()));
        baton
    }

    /// One statement's result; the inner error is SQLite's.
    async fn execute(
        &self,
        connection: &Connection,
        statement: &Value,
    ) -> Answer<Result<Value, Value>> {
        let sql = statement["sql"].as_str().unwrap();
        let failing = self.fault.lock().unwrap().take_if(|start| sql.starts_with(start.as_str()));
        if failing.is_some() {
            return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the server failed"));
        }
        Ok(execute(connection, sql, statement).await.map_err(sqlite_error))
    }

    async fn batch(
        &self,
        connection: &Connection,
        batch: &Value,
    ) -> Answer<(Vec<Value>, Vec<Value>)> {
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for step in batch["steps"].as_array().unwrap() {
            let (mut result, mut error) = (Value::Null, Value::Null);
            if holds(&step["condition"], &results, &errors) {
                match self.execute(connection, &step["stmt"]).await? {
                    Ok(done) => result = done,
                    Err(failed) => error = failed,
                }
            }
            results.push(result);
            errors.push(error);
        }
        Ok((results, errors))
    }

    async fn answer(&self, connection: &Connection, request: &Value) -> Answer<Value> {
        let kind = request["type"].as_str().unwrap();
        let response = match kind {
            "execute" => match self.execute(connection, &request["stmt"]).await? {
                Ok(result) => json!({"type": kind, "result": result}),
                Err(error) => return Ok(json!({"type": "error", "error": error})),
            },
            "batch" => {
                let (results, errors) = self.batch(connection, &request["batch"]).await?;
                let result = json!({"step_results": results, "step_errors": errors});
                json!({"type": kind, "result": result})
            }
            "describe" => match connection.prepare(request["sql"].as_str().unwrap()).await {
                Ok(statement) => {
                    let cols: Vec<_> =
                        statement.columns().iter().map(|c| json!({"name": c.name()})).collect();
                    let result = json!({
                        "params": [], "cols": cols, "is_explain": false, "is_readonly": false,
                    });
                    json!({"type": kind, "result": result})
                }
                Err(error) => {
                    return Ok(json!({"type": "error", "error": sqlite_error(error)}));
                }
            },
            "get_autocommit" => json!({"type": kind, "is_autocommit": connection.is_autocommit()}),
            "close" => json!({"type": kind}),
            other => panic!("the client sent {other}"),
        };
        Ok(json!({"type": "ok", "response": response}))
    }
}

async fn pipeline(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let connection = server.take(&headers, &request).await?;
    let requests = request["requests"].as_array().unwrap();
    let mut results = Vec::new();
    for request in requests {
        results.push(server.answer(&connection, request).await?);
    }
    let closed = requests.iter().any(|request| request["type"] == "close");
    let baton = (!closed).then(|| server.put_back(connection));
    Ok(Json(json!({"baton": baton, "base_url": null, "results": results})))
}

async fn cursor(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<String> {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let connection = server.take(&headers, &request).await?;
    let (results, errors) = server.batch(&connection, &request["batch"]).await?;
    let mut lines = vec![json!({"baton": server.put_back(connection), "base_url": null})];
    for (step, (result, error)) in results.into_iter().zip(errors).enumerate() {
        if error.is_null() {
            lines.push(json!({"type": "step_begin", "step": step, "cols": result["cols"]}));
            let rows = result["rows"].as_array().unwrap();
            lines.extend(rows.iter().map(|row| json!({"type": "row", "row": row})));
            let affected = &result["affected_row_count"];
            lines.push(json!({"type": "step_end", "affected_row_count": affected}));
        } else {
            lines.push(json!({"type": "step_error", "step": step, "error": error}));
        }
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    Ok(lines.join("\n"))
}

async fn execute(connection: &Connection, sql: &str, statement: &Value) -> libsql::Result<Value> {
    let arguments: Vec<Cell> = statement["args"].as_array().unwrap().iter().map(decode).collect();
    let before = connection.total_changes();
    let mut rows = connection.query(sql, arguments).await?;
    let cols: Vec<_> =
        (0..rows.column_count()).map(|column| json!({"name": rows.column_name(column)})).collect();
    let mut found = Vec::new();
    while let Some(row) = rows.next().await? {
        let cells: libsql::Result<Vec<_>> =
            (0..row.column_count()).map(|column| Ok(encode(row.get_value(column)?))).collect();
        found.push(cells?);
    }
    Ok(json!({
        "cols": cols,
        "rows": if statement["want_rows"] == true { found } else { Vec::new() },
        "affected_row_count": connection.total_changes() - before,
        "last_insert_rowid": connection.last_insert_rowid().to_string(),
    }))
}

/// Whether a step is to be run.
fn holds(condition: &Value, results: &[Value], errors: &[Value]) -> bool {
    let step = || usize::try_from(condition["step"].as_u64().unwrap()).unwrap();
    match condition["type"].as_str() {
        None => true,
        Some("ok") => !results[step()].is_null(),
        Some("error") => !errors[step()].is_null(),
        Some("not") => !holds(&condition["cond"], results, errors),
        Some(other) => panic!("the client sent the condition {other}"),
    }
}

fn decode(value: &Value) -> Cell {
    let content = &value["value"];
    match value["type"].as_str().unwrap() {
        "null" => Cell::Null,
        "integer" => Cell::Integer(content.as_str().unwrap().parse().unwrap()),
        "float" => Cell::Real(content.as_f64().unwrap()),
        "text" => Cell::Text(content.as_str().unwrap().to_owned()),
        other => panic!("the store holds no {other}"),
    }
}

fn encode(cell: Cell) -> Value {
    match cell {
        Cell::Null => json!({"type": "null"}),
        Cell::Integer(value) => json!({"type": "integer", "value": value.to_string()}),
        Cell::Real(value) => json!({"type": "float", "value": value}),
        Cell::Text(value) => json!({"type": "text", "value": value}),
        Cell::Blob(_) => panic!("the store holds no blobs"),
    }
}

fn sqlite_error(error: libsql::Error) -> Value {
    json!({"message": error.to_string(), "code": "SQLITE_ERROR"})
}

fn refusal(status: StatusCode, message: &str) -> (StatusCode, Json<Value>) {
    (status, Json(json!({"error": message})))
}
