//! Several servers for a model: which one is asked, what happens when one fails, and who comes in its place.

mod choice;
mod failures;
mod time;

use end_to_end::upstream::{FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, all_that_comes, config_dir, roomy, with_model};
use serde_json::{Value, json};

fn asking(text: &str) -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": text}], "max_tokens": 10})
}

/// A gateway whose model `tested` is at several servers.
async fn at(urls: &[&str], more: &str, gateway_yaml: &str) -> Gateway {
    let others: Vec<String> = urls[1..]
        .iter()
        .map(|url| format!("}}, {{base_url: \"{url}\""))
        .collect();
    let others = others.concat();
    let dir = config_dir(|name, text| match name {
        "models.yaml" => format!("{}{more}", with_model(&text, "tested", "openai", urls[0], &others)),
        "gateway.yaml" => format!("{text}{gateway_yaml}"),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// All that comes of a stream, be its end a clean one or not.
async fn until_it_ends(gateway: &Gateway, body: &Value) -> String {
    all_that_comes(gateway.post("/v1/chat/completions", body).await).await.0
}

/// A server that answers every request as it should.
async fn well() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            if !connection.last_request().contains("\"stream\":true") {
                connection.answer("200 OK", WHOLE).await;
                continue;
            }
            connection.begin_stream().await;
            for event in [&delta("hello"), FINISH, USAGE, "data: [DONE]\n\n"] {
                connection.chunk(event).await;
            }
            connection.write("0\r\n\r\n").await;
        }
    })
    .await
}

/// Ways to fail before anything of an answer was seen, by what the server does with a connection.
const WAYS: &[&str] = &[
    "resets",
    "half a head",
    "garbage",
    "500",
    "503",
    "429",
    "a huge head",
    "wrong length",
    "half a chunk",
    "hangs",
];

async fn failing(way: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            match way {
                "resets" => return,
                "half a head" => return connection.write("HTTP/1.1 200 OK\r\ncontent-le").await,
                "garbage" => return connection.write("\u{0}\u{1}nonsense\r\n\r\n").await,
                "500" => connection.answer("500 Oops", "{}").await,
                "503" => connection.answer("503 Busy", "{}").await,
                "429" => {
                    connection
                        .write("HTTP/1.1 429 Slow down\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}")
                        .await;
                }
                "a huge head" => {
                    connection.write("HTTP/1.1 200 OK\r\nx-huge: ").await;
                    let piece = "a".repeat(1 << 20);
                    for _ in 0..10 {
                        connection.write(&piece).await;
                    }
                    return connection.write("\r\ncontent-length: 2\r\n\r\n{}").await;
                }
                "wrong length" => {
                    return connection
                        .write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{}")
                        .await;
                }
                "half a chunk" => {
                    connection.begin_stream().await;
                    return connection.write("ff\r\ndata: {\"cho").await;
                }
                _ => return connection.closed().await,
            }
        }
    })
    .await
}
