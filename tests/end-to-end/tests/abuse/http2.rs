//! Floods of HTTP/2 frames by a client without a key: streams that are reset at once (CVE-2023-44487), heads that never
//! end (CVE-2024-27316), heads that grow when they are unpacked, and frames that each want an answer.

use super::watch::Watch;
use end_to_end::authority::Authority;
use end_to_end::{Gateway, config_dir, roomy};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a flood; the gateway may close the connection before.
const FLOOD: usize = 4 << 20;

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A field that is not indexed (RFC 7541, section 6.2.2), with short name and value.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn head() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "127.0.0.1"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A flood by its name: the frames that begin it, and those of each round, by the round's number.
type Flood = (&'static str, Vec<u8>, Box<dyn Fn(u32) -> Vec<u8>>);

fn floods() -> Vec<Flood> {
    let none = Vec::new;
    // An entry of the table with a long value, to which each byte that follows refers (RFC 7541, section 6.1).
    let entry = [&[0x40, 1, b'a', 0x7f, 0xbd, 0x1d][..], &[b'v'; 3900]].concat();
    let bomb = [head(), entry, vec![0xbe; 12_000]].concat();
    let stream = |round: u32| 2 * round + 1;
    let same = |frame: Vec<u8>| Box::new(move |_| frame.clone()) as Box<dyn Fn(u32) -> Vec<u8>>;
    vec![
        (
            "streams that are reset at once",
            none(),
            Box::new(move |round| {
                let opened = frame(HEADERS, END_HEADERS, stream(round), &head());
                [opened, frame(RESET, 0, stream(round), &8_u32.to_be_bytes())].concat()
            }),
        ),
        (
            "a head without end",
            frame(HEADERS, 0, 1, &head()),
            same(frame(CONTINUATION, 0, 1, &field("x-more", &"a".repeat(100)))),
        ),
        (
            "a head of empty frames",
            frame(HEADERS, 0, 1, &head()),
            same(frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "heads that grow when they are unpacked",
            none(),
            Box::new(move |round| frame(HEADERS, END_HEADERS | 1, stream(round), &bomb)),
        ),
        ("settings", none(), same(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]))),
        ("pings", none(), same(frame(PING, 0, 0, b"12345678"))),
        (
            "priorities",
            none(),
            Box::new(move |round| frame(PRIORITY, 0, stream(round), &[0, 0, 0, 0, 1])),
        ),
        ("windows", none(), same(frame(WINDOW, 0, 0, &1_u32.to_be_bytes()))),
        (
            "empty data",
            frame(HEADERS, END_HEADERS, 1, &head()),
            same(frame(DATA, 0, 1, &[])),
        ),
        ("frames of an unknown kind", none(), same(frame(0xbe, 0, 0, &[0; 100]))),
        (
            "bodies that never come",
            none(),
            Box::new(move |round| frame(HEADERS, END_HEADERS, stream(round), &head())),
        ),
    ]
}

/// Sends a flood until it is over or refused; the gateway's frames, which are read meanwhile, or only at the end.
async fn send<S: AsyncRead + AsyncWrite>(
    stream: S,
    begin: &[u8],
    round: &dyn Fn(u32) -> Vec<u8>,
    reads: bool,
) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), begin].concat();
    writer.write_all(&opening).await.expect("sent");
    let writing = async {
        let (mut sent, mut number) = (0, 0);
        while sent < FLOOD {
            let mut frames = Vec::new();
            while frames.len() < 16 << 10 {
                frames.extend(round(number));
                number += 1;
            }
            // Who does not read is not read from for ever, either.
            let write = tokio::time::timeout(Duration::from_secs(2), writer.write_all(&frames));
            let Ok(Ok(())) = write.await else { return };
            sent += frames.len();
        }
    };
    let mut answer = Vec::new();
    if reads {
        let reading = async { while reader.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {} };
        let writing = async {
            writing.await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    } else {
        writing.await;
        let _ = tokio::time::timeout(Duration::from_millis(200), reader.read_buf(&mut answer)).await;
    }
    answer
}

/// The error code of a GOAWAY among frames (RFC 9113, section 6.8).
fn goaway(mut frames: &[u8]) -> Option<u32> {
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] == GOAWAY {
            return rest.get(4..8)?.try_into().ok().map(u32::from_be_bytes);
        }
        frames = rest.get(length..)?;
    }
    None
}

/// Floods that only the gateway's own bound ends; the others are bounded by the library that reads frames.
const CONTROL: [&str; 5] = [
    "settings",
    "pings",
    "priorities",
    "windows",
    "frames of an unknown kind",
];

const REFUSED: &str = "sluice_connections_refused_total{listener=\"proxy\",reason=\"control_frames\"}";

#[tokio::test]
async fn floods_of_http_2_frames_take_no_memory_and_others_are_served() {
    let gateway = Gateway::start().await;
    let watch = Watch::begin(&gateway);
    for (name, begin, round) in floods() {
        for reads in [true, false] {
            let connection = TcpStream::connect(gateway.address()).await.expect("connected");
            let frames = send(connection, &begin, &round, reads).await;
            let is_control = CONTROL.contains(&name);
            assert!(
                !(is_control && reads) || goaway(&frames) == Some(ENHANCE_YOUR_CALM),
                "{name}"
            );
            let answer = gateway.http.get(format!("{}/v1/models", gateway.proxy)).send().await;
            assert!(answer.is_ok_and(|answer| answer.status() == 200), "after {name}");
        }
    }
    assert!(gateway.metric(REFUSED).await >= 10.0);
    watch.end(&gateway).await;
}

#[tokio::test]
async fn a_flood_of_control_frames_is_refused_over_tls_too() {
    let authority = Authority::new();
    let (cert, key, _) = authority.sign("localhost");
    let gateway = Gateway::start_in(
        config_dir(|name, text| match name {
            "gateway.yaml" => format!("{text}\ntls:\n  cert_file: {cert}\n  key_file: {key}\n"),
            _ => roomy(name, text),
        }),
        &[],
    )
    .await;
    for (name, begin, round) in floods().into_iter().filter(|(name, ..)| CONTROL.contains(name)) {
        let connection = TcpStream::connect(gateway.address()).await.expect("connected");
        let connection = authority.connect("localhost", &[b"h2"], connection).await;
        let frames = send(connection, &begin, &round, true).await;
        assert_eq!(goaway(&frames), Some(ENHANCE_YOUR_CALM), "{name}");
    }
    assert!(gateway.metric(REFUSED).await >= 5.0);
}
