//! A real Valkey or Redis of the test's own, which `tests/setup test` has installed. It stores nothing on disk.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct Redis {
    child: Child,
    port: u16,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// `redis://…`, with a password.
    pub url: String,
}

/// The password that the server demands.
const PASSWORD: &str = "geheim";

impl Redis {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let address = format!("127.0.0.1:{port}");
        Self {
            child: spawn(port),
            port,
            url: format!("redis://:{PASSWORD}@{address}/1"),
            address,
        }
    }

    /// Ends it at once, with all that it knows.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty.
    pub fn run(&mut self) {
        self.child = spawn(self.port);
    }
}

fn spawn(port: u16) -> Child {
    let start = |program: &str| {
        Command::new(program)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
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
