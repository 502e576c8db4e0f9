//! A real Valkey or Redis of the test's own, which `tests/setup test` has installed. It stores nothing on disk.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct Redis {
    child: Child,
    port: u16,
    /// Certificate and key (PEM) where it accepts nothing but TLS.
    tls: Option<[String; 2]>,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// `redis://…`, with a password.
    pub url: String,
}

/// The password that the server demands.
pub const PASSWORD: &str = "geheim";

impl Redis {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with a certificate and its key (PEM files): it accepts nothing but TLS. The certificate is for `localhost`.
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let mut server = Self::start_with(Some([certificate.to_owned(), key.to_owned()]));
        server.url = format!("rediss://:{PASSWORD}@localhost:{}/1", server.port);
        server
    }

    fn start_with(tls: Option<[String; 2]>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let address = format!("127.0.0.1:{port}");
        Self {
            child: spawn(port, tls.as_ref()),
            port,
            tls,
            url: format!("redis://:{PASSWORD}@{address}/1"),
            address,
        }
    }

    /// What its own client prints for a command, over TLS that it does not verify.
    pub fn ask_over_tls(&self, command: &[&str]) -> String {
        let start = |program: &str| {
            Command::new(program)
                .args(["--tls", "--insecure", "-h", "localhost", "-n", "1", "--no-auth-warning"])
                .args(["-p", &self.port.to_string(), "-a", PASSWORD])
                .args(command)
                .output()
        };
        let output = start("valkey-cli").or_else(|_| start("redis-cli"));
        let output = output.expect("it comes with the server");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends it at once, with all that it knows.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty.
    pub fn run(&mut self) {
        self.child = spawn(self.port, self.tls.as_ref());
    }
}

fn spawn(port: u16, tls: Option<&[String; 2]>) -> Child {
    let number = port.to_string();
    let listens: Vec<&str> = match tls {
        None => vec!["--port", &number],
        Some([certificate, key]) => {
            let tls = ["--port", "0", "--tls-port", &number, "--tls-auth-clients", "no"];
            let files = ["--tls-cert-file", certificate, "--tls-key-file", key];
            tls.into_iter().chain(files).collect()
        }
    };
    let start = |program: &str| {
        Command::new(program)
            .args(&listens)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD])
            .stdout(Stdio::null())
            .spawn()
    };
    let child = start("valkey-server").or_else(|_| start("redis-server"));
    let child = child.expect("Valkey or Redis is installed; run `tests/setup test`");
    let give_up = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < give_up, "the server is not ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
