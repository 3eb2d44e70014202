//! A headless Chromium, driven over its DevTools protocol on two pipes: what a page shows, logs and looks like.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::eventually;

/// Debian's names for it; `FERRITE_CHROMIUM` goes over them.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// Until a page shows what it should, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One tab. The browser ends with it.
pub struct Browser {
    _child: Child,
    /// Requests, each ended by a zero byte.
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    last_id: u64,
    /// Exceptions of the page's scripts and what its console has as errors, violations of its policy among them.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it with an empty tab.
    ///
    /// # Panics
    /// If there is none: `ci/setup` installs it.
    pub async fn start() -> Self {
        let given = std::env::var("FERRITE_CHROMIUM").ok();
        let found = PROGRAMS.map(str::to_owned).into_iter().find(|name| Path::new("/usr/bin").join(name).exists());
        let program = given.or(found).expect("a Chromium: `ci/setup` installs it");
        let profile = tempfile::tempdir().expect("a directory");
        // It speaks on descriptors 3 and 4; a shell puts our pipes there.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script, &program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--remote-debugging-pipe", "--window-size=1280,800"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut browser = Self {
            _child: child,
            requests,
            answers,
            session: None,
            last_id: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The whole answer, an error too.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).await.expect("the browser reads");
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).await.expect("the browser answers");
            assert_eq!(bytes.pop(), Some(0), "the browser ended during {method}");
            let answer: Value = serde_json::from_slice(&bytes).expect("it answers in JSON");
            if answer["id"] == json!(self.last_id) {
                return answer;
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let (method, params) = (event["method"].as_str().unwrap_or_default(), &event["params"]);
        if method == "Runtime.exceptionThrown" {
            self.complaints.push(params["exceptionDetails"].to_string());
        } else if method == "Log.entryAdded" && params["entry"]["level"] == "error" {
            self.complaints.push(params["entry"].to_string());
        }
    }

    /// Goes to an address, in light or dark, and waits until the expression is true there.
    pub async fn open(&mut self, address: &str, scheme: &str, ready: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
        self.call("Page.navigate", json!({ "url": address })).await;
        self.until(ready).await;
    }

    /// What a JavaScript expression, or its promise, gives; null while a page is being left.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        self.ask("Runtime.evaluate", params).await["result"]["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        eventually(expression, PATIENCE, async || (self.value(expression).await == json!(true)).then_some(())).await;
    }

    /// Presses a key; a single character is typed.
    pub async fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "ArrowDown" => 40,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        let mut down = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if key == "Enter" {
            down["text"] = json!("\r");
        } else if key.len() == 1 {
            down["text"] = json!(key);
        }
        self.call("Input.dispatchKeyEvent", down).await;
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code }))
            .await;
    }

    /// What it looks like, as a PNG in base64.
    pub async fn screenshot(&mut self) -> String {
        self.call("Page.captureScreenshot", json!({})).await["data"].as_str().expect("a picture").to_owned()
    }
}
