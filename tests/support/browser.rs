//! A headless Chromium, driven over WebDriver (W3C): the handful of commands that tests need.
//!
//! `chromium` and `chromedriver` come by scripts/setup.sh tests; CHROMIUM and CHROMEDRIVER name
//! others. It reaches nobody but this machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::until;

const REMEDY: &str = "run `scripts/setup.sh tests` (on Debian: chromium, chromium-driver)";

/// Keys as WebDriver names them.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

fn program(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

impl Browser {
    /// A window of that size, with nothing remembered.
    pub async fn open(width: u32, height: u32) -> Browser {
        let mut driver = Command::new(program("CHROMEDRIVER", "chromedriver"))
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}: {REMEDY}"));
        let mut said = BufReader::new(driver.stdout.take().expect("its words")).lines();
        let port = loop {
            let line = said.next_line().await.expect("its words");
            let line = line.unwrap_or_else(|| panic!("chromedriver did not start: {REMEDY}"));
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').parse::<u16>().expect("a port");
            }
        };
        // It must not stand still because nobody reads what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        let profile = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"
                .to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let mut options = json!({ "args": arguments });
        if let Ok(binary) = std::env::var("CHROMIUM") {
            options["binary"] = binary.into();
        }
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let mut browser = Browser { driver, address, session: String::new(), _profile: profile };
        let made = browser.ask(Method::POST, "/session", Some(&capabilities)).await;
        let made = made.unwrap_or_else(|error| panic!("no browser: {error}: {REMEDY}"));
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        // What it opens by itself asks for things of its own.
        browser.go("about:blank").await;
        _ = (browser.requests().await, browser.complaints().await);
        browser
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("chromedriver");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let well = answer.status().is_success();
        let body = answer.into_body().collect().await.expect("an answer").to_bytes();
        let mut told: Value = serde_json::from_slice(&body).expect("JSON");
        let value = told["value"].take();
        if well { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        let answer = self.ask(Method::POST, &path, Some(&body)).await;
        answer.unwrap_or_else(|error| panic!("{command} {body}: {error}"))
    }

    pub async fn go(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// What a script gives: the body of a function, with `arguments`.
    pub async fn script(&self, body: &str, arguments: Value) -> Value {
        self.post("execute/sync", json!({ "script": body, "args": arguments })).await
    }

    /// The same for one that calls its last argument when it is done.
    pub async fn script_later(&self, body: &str, arguments: Value) -> Value {
        self.post("execute/async", json!({ "script": body, "args": arguments })).await
    }

    /// What is to be read in the first such element, as it is shown; empty without one.
    pub async fn text(&self, selector: &str) -> String {
        let body = "const found = document.querySelector(arguments[0]); \
                    return found?.checkVisibility() ? found.innerText : ''";
        self.script(body, json!([selector])).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until that can be read there.
    pub async fn until_text(&self, selector: &str, part: &str) {
        let what = format!("{part:?} in {selector}");
        let start = std::time::Instant::now();
        loop {
            let text = self.text(selector).await;
            if text.contains(part) {
                return;
            }
            let late = start.elapsed() > super::PATIENCE;
            assert!(!late, "waited in vain for {what}, which says {text:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &str) {
        let events: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({ "type": "keyDown", "value": key }),
                    json!({ "type": "keyUp", "value": key }),
                ]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": events });
        self.post("actions", json!({ "actions": [keyboard] })).await;
    }

    /// By the DevTools protocol: what WebDriver has no word for.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// What the page has complained of since this was asked last.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await;
        entries.as_array().expect("a list").iter().map(ToString::to_string).collect()
    }

    /// Whatever was requested since this was asked last.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "performance" })).await;
        let message = |entry: &Value| -> Option<Value> {
            serde_json::from_str::<Value>(entry["message"].as_str()?).ok()?.get("message").cloned()
        };
        let sent = entries.as_array().expect("a list").iter().filter_map(message);
        let sent = sent.filter(|message| message["method"] == "Network.requestWillBeSent");
        let url = |sent: Value| sent["params"]["request"]["url"].as_str().map(str::to_owned);
        sent.filter_map(url).collect()
    }

    /// The whole page, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        use base64::Engine as _;
        let parameters = json!({ "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", parameters).await;
        let data = taken["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(data).expect("base64")
    }

    /// Waits until a script gives true.
    pub async fn until(&self, what: &str, body: &str) {
        until(what, async || (self.script(body, json!([])).await == true).then_some(())).await;
    }
}

/// Ends Chromium, too: killed alone, its driver would leave it behind.
impl Drop for Browser {
    fn drop(&mut self) {
        let bound = Duration::from_secs(10);
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect_timeout(&self.address, bound)
        {
            let request = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.session, self.address
            );
            _ = stream.set_read_timeout(Some(bound));
            _ = stream.write_all(request.as_bytes());
            _ = stream.read(&mut [0; 1024]);
        }
        _ = self.driver.start_kill();
    }
}
