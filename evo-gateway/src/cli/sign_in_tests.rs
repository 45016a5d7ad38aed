use base64::Engine as _;
use serde_json::json;
use sha2::Digest as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use url::Url;

use super::*;
use crate::provider::{codex::jwt, fake::Fake};

fn args(provider: &str) -> CodexArgs {
    CodexArgs {
        token: None,
        account_id: None,
        force: false,
        device: false,
        no_browser: true,
        provider: provider.to_owned(),
        data: None,
    }
}

fn settings(folder: &tempfile::TempDir, issuer: &str) -> SignIn {
    let file = Some(folder.path().join("credentials.json"));
    SignIn { file, codex_issuer: issuer.to_owned(), ..SignIn::default() }
}

fn tokens() -> String {
    let id = jwt::of(&json!({
        "email": "me@example.com",
        "https://api.openai.com/auth": {"chatgpt_account_id": "acc-1"},
    }));
    let access = jwt::of(&json!({"exp": 1_900_000_000}));
    json!({"access_token": access, "refresh_token": "refresh-1", "id_token": id}).to_string()
}

/// A login server; `polls` questions about a device go unanswered.
async fn login_server(polls: usize) -> Fake {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Fake::start(move |request| match request.path.as_str() {
        "/oauth/token" if request.body.contains("code=good") => (200, tokens()),
        "/oauth/token" => (400, r#"{"error":"invalid_grant"}"#.to_owned()),
        "/api/accounts/deviceauth/usercode" => {
            let code = json!({"device_auth_id": "d-1", "user_code": "ABCD-1234", "interval": "0"});
            (200, code.to_string())
        }
        "/api/accounts/deviceauth/token" => {
            if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < polls {
                return (403, "{}".to_owned());
            }
            let typed = json!({
                "authorization_code": "good", "code_verifier": "v-1", "code_challenge": "c-1",
            });
            (200, typed.to_string())
        }
        _ => (404, "{}".to_owned()),
    })
    .await
}

fn client() -> Client {
    Client::new([]).unwrap()
}

async fn visit(url: &Url) -> String {
    let address = (url.host_str().unwrap().replace("localhost", "127.0.0.1"), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let target = &url[url::Position::BeforePath..];
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_browser_signs_in_with_pkce() {
    let server = login_server(0).await;
    let waiting = Waiting::on(0, Issuer::new(&server.url(""))).await.unwrap();
    let page = waiting.page().unwrap();
    let value = |name: &str| -> String {
        page.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned()
    };
    assert_eq!(page.path(), "/oauth/authorize");
    assert_eq!(value("code_challenge_method"), "S256");
    let back = Url::parse(&value("redirect_uri")).unwrap();
    assert_eq!(back.path(), "/auth/callback");
    let client = client();
    let with = |pairs: &[(&str, &str)]| {
        let mut url = back.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        url
    };
    let state = value("state");
    let browser = async {
        // Somebody else's page sends the browser here first.
        let forged = visit(&with(&[("code", "forged"), ("state", "guess")])).await;
        assert!(forged.starts_with("HTTP/1.1 404"), "{forged}");
        let answer = visit(&with(&[("code", "good"), ("state", &state)])).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("good"), "{answer}");
    };
    let (signed_in, ()) = tokio::join!(waiting.signed_in(&client), browser);
    let signed_in = signed_in.unwrap();
    assert_eq!(signed_in.account_id.as_deref(), Some("acc-1"));
    assert_eq!(signed_in.refresh_token.as_deref(), Some("refresh-1"));
    assert_eq!(signed_in.expires_at.unwrap().timestamp(), 1_900_000_000);
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    let form: std::collections::HashMap<String, String> =
        url::form_urlencoded::parse(asked[0].body.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!(form["redirect_uri"], back.as_str());
    let digest = sha2::Sha256::digest(form["code_verifier"].as_bytes());
    let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
    assert_eq!(digest, value("code_challenge"), "only who began can exchange the code");
}

#[tokio::test]
async fn a_refusal_in_the_browser_is_told() {
    let server = login_server(0).await;
    let waiting = Waiting::on(0, Issuer::new(&server.url(""))).await.unwrap();
    let page = waiting.page().unwrap();
    let pairs: std::collections::HashMap<_, _> = page.query_pairs().into_owned().collect();
    let mut back = Url::parse(&pairs["redirect_uri"]).unwrap();
    let why =
        [("error", "access_denied"), ("error_description", "no plan"), ("state", &pairs["state"])];
    back.query_pairs_mut().extend_pairs(why);
    let client = client();
    let (signed_in, answer) = tokio::join!(waiting.signed_in(&client), visit(&back));
    assert!(signed_in.unwrap_err().contains("no plan"));
    assert!(answer.starts_with("HTTP/1.1 400") && server.asked().is_empty(), "{answer}");
}

#[tokio::test]
async fn a_device_signs_in_with_a_code_and_tokens_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = login_server(2).await;
    let settings = settings(&folder, &server.url("/"));
    let device = CodexArgs { device: true, ..args("codex-auth") };
    let said = codex(device.clone(), &settings, 0).await.unwrap();
    assert!(said.starts_with("me@example.com is signed in with ChatGPT"), "{said}");
    let paths: Vec<String> = server.asked().iter().map(|asked| asked.path.clone()).collect();
    assert_eq!(paths.len(), 5, "{paths:?}");
    let last = server.asked().pop().unwrap();
    assert!(last.body.contains("deviceauth%2Fcallback") && last.body.contains("v-1"), "{last:?}");
    let store = Store::new(folder.path().join("credentials.json"));
    let kept = store.load("codex-auth").unwrap().unwrap();
    assert_eq!(kept.refresh_token.as_deref(), Some("refresh-1"));

    let said = codex(device, &settings, 0).await.unwrap();
    assert!(said.contains("already") && server.asked().len() == 5, "{said}");
}

#[tokio::test]
async fn a_token_that_somebody_has_is_kept_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, "http://127.0.0.1:9");
    let keep = async |provider: &str, token: &str, account_id: Option<&str>| {
        let token = Some(token.to_owned());
        let account_id = account_id.map(str::to_owned);
        let said = codex(CodexArgs { token, account_id, ..args(provider) }, &settings, 0).await;
        let said = said.unwrap();
        assert!(!said.contains("secret"), "{said}");
        let store = Store::new(settings.file.clone().unwrap());
        (said, store.load(provider).unwrap().unwrap())
    };
    let (said, kept) = keep("a", "sk-secret", None).await;
    assert!(said.contains("key of OpenAI's API") && kept.account_id.is_none(), "{said}");
    let (said, kept) = keep("b", "secret", Some("acc-2")).await;
    assert!(said.contains("not renewed") && kept.account_id.as_deref() == Some("acc-2"), "{said}");
    let wrong = CodexArgs { token: Some("two words".to_owned()), ..args("c") };
    assert!(codex(wrong, &settings, 0).await.unwrap_err().to_string().contains("--token"));
}

#[test]
fn a_program_signs_in_unless_it_is_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let script = |says: &str| {
        let path = folder.path().join(format!("program{}", says.len()));
        let here = folder.path().display();
        let text = format!("#!/bin/sh\necho \"$@\" >> {here}/calls\n{says}\n");
        let mut write = Process::new("/bin/sh");
        write.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
        let mut write = write.spawn().unwrap();
        io::Write::write_all(&mut write.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(write.wait().unwrap().success());
        path
    };
    let calls = || {
        let file = folder.path().join("calls");
        let calls = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, "").unwrap();
        calls
    };
    let run = |kind, force, path: &PathBuf| {
        program(kind, ProgramArgs { force, program: Some(path.clone()) })
    };
    let in_already = script("exit 0");
    run(Kind::Claude, false, &in_already).unwrap();
    assert_eq!(calls(), "auth status\n");
    run(Kind::Claude, true, &in_already).unwrap();
    assert_eq!(calls(), "auth login\n");
    let not_yet = script("[ \"$1\" = login ] && [ $# = 1 ]");
    run(Kind::Codex, false, &not_yet).unwrap();
    assert_eq!(calls(), "login status\nlogin\n");
    let never = script("exit 1 # never");
    let error = run(Kind::Cursor, false, &never).unwrap_err().to_string();
    assert!(error.contains("login` did not sign in"), "{error}");
    let error = run(Kind::Cursor, false, &PathBuf::from("/no/such")).unwrap_err().to_string();
    assert!(error.contains("--program"), "{error}");
}
