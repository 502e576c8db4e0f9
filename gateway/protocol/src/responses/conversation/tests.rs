//! Expected bodies are written out by hand from OpenAI's guide "Conversation state", which shows the same conversation
//! with and without `previous_response_id`: <https://platform.openai.com/docs/guides/conversation-state>.

use super::{Label, history, input_items, last_response, not_stored, replay, stateless};
use crate::request::Storage;
use crate::responses::StoredItems;
use crate::{Operation, parse};
use serde_json::{Value, json};

fn storage(body: &str) -> (bool, Option<String>, bool) {
    let parsed = parse(Operation::Responses, body.as_bytes()).expect("valid");
    let Storage {
        store,
        previous_response_id,
        has_conversation,
        ..
    } = parsed.storage;
    (store, previous_response_id.map(String::from), has_conversation)
}

#[test]
fn only_an_explicit_true_stores() {
    for (body, store) in [
        (r#"{"model":"m","input":"a"}"#, false),
        (r#"{"model":"m","input":"a","store":null}"#, false),
        (r#"{"model":"m","input":"a","store":false}"#, false),
        (r#"{"model":"m","input":"a","store":"true"}"#, false),
        (r#"{"model":"m","input":"a","store": true }"#, true),
    ] {
        assert_eq!(storage(body).0, store, "{body}");
    }
    let body = r#"{"model":"m","input":"a","previous_response_id":"resp_\u0031","conversation":"conv_1"}"#;
    assert_eq!(storage(body), (false, Some("resp_1".to_owned()), true));
    let chat = parse(
        Operation::ChatCompletions,
        br#"{"model":"m","messages":[],"store":true}"#,
    )
    .expect("valid");
    assert!(!chat.storage.is_used(), "chat completions are never stored");
}

fn resolved(body: &str, history: &str) -> (Value, String) {
    let stateless = stateless(body.as_bytes(), history, &StoredItems::default()).expect("valid");
    (serde_json::from_slice(&stateless.body).expect("JSON"), stateless.input)
}

#[test]
fn the_history_stands_before_the_requests_own_input_and_everything_else_stays() {
    let turn = history(
        r#""knock knock.""#,
        r#"{"id":"resp_1","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Who's there?"}]}],"status":"completed"}"#,
    )
    .expect("a turn");
    let body = r#"{"model":"m","previous_response_id":"resp_1","input":[{"role":"user","content":"Orange."}],"store":true,"temperature":0.5}"#;
    let (body, own) = resolved(body, &turn);
    assert_eq!(
        body,
        json!({"model": "m", "previous_response_id": null, "store": false, "temperature": 0.5, "input": [
            {"role": "user", "content": "knock knock."},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Who's there?"}]},
            {"role": "user", "content": "Orange."},
        ]})
    );
    assert_eq!(own, r#"[{"role":"user","content":"Orange."}]"#);
}

#[test]
fn an_input_may_be_a_text_a_list_or_nothing() {
    let turn = r#"{"role":"user","content":"a"}"#;
    for (input, expected) in [
        (
            r#","input":"b""#,
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
        ),
        (r#","input":[]"#, json!([{"role": "user", "content": "a"}])),
        (r#","input":null"#, json!([{"role": "user", "content": "a"}])),
        ("", json!([{"role": "user", "content": "a"}])),
    ] {
        let (body, _) = resolved(&format!(r#"{{"model":"m"{input}}}"#), turn);
        assert_eq!(body["input"], expected, "{input}");
    }
    assert!(stateless(br#"{"model":"m","input":7}"#, turn, &StoredItems::default()).is_err());
    let (body, own) = resolved(r#"{"model":"m","input":"b","store":true}"#, "");
    assert_eq!(
        (&body["input"], own.as_str()),
        (&json!("b"), "\"b\""),
        "a first turn stays as it is"
    );
}

#[test]
fn a_reference_is_replaced_by_its_item_for_the_server_and_in_what_is_kept() {
    let mut stored = StoredItems::default();
    stored.add(r#"{"output":[{"id":"msg_1","type":"message","role":"assistant","content":[]}]}"#);
    let body =
        r#"{"model":"m","store":true,"input":[{"type":"item_reference","id":"msg_1"},{"role":"user","content":"b"}]}"#;
    assert!(
        parse(Operation::Responses, body.as_bytes())
            .expect("valid")
            .storage
            .referring_input
            .is_some()
    );
    let item = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": []});
    let own = json!([item, {"role": "user", "content": "b"}]);
    for (history, expected) in [
        ("", own.clone()),
        (
            r#"{"role":"user","content":"a"}"#,
            json!([{"role": "user", "content": "a"}, item, {"role": "user", "content": "b"}]),
        ),
    ] {
        let resolved = stateless(body.as_bytes(), history, &stored).expect("valid");
        let sent: Value = serde_json::from_slice(&resolved.body).expect("JSON");
        assert_eq!(sent["input"], expected);
        assert_eq!(serde_json::from_str::<Value>(&resolved.input).expect("JSON"), own);
    }
}

#[test]
fn what_is_no_turn_is_no_history() {
    assert_eq!(history("[]", r#"{"output":[]}"#).as_deref(), Some(""));
    assert_eq!(history("[ ]", r#"{"output":[{}]}"#).as_deref(), Some("{}"));
    assert_eq!(history("7", r#"{"output":[]}"#), None);
    assert_eq!(history("[]", r#"{"output":null}"#), None);
    assert_eq!(history("[]", "nonsense"), None);
}

#[test]
fn input_items_have_ids_of_their_own_and_contents_of_parts() {
    let input = r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"},
        {"type":"message","role":"user","content":[{"type":"input_text","text":"c"}],"id":"msg_mine"},
        {"type":"function_call_output","call_id":"c1","output":"d"}]"#;
    assert_eq!(
        input_items(input, "resp_req_1"),
        [
            json!({"role": "user", "content": [{"type": "input_text", "text": "a"}], "status": "completed", "id": "msg_req_1_in_0", "type": "message"}),
            json!({"role": "assistant", "content": [{"type": "output_text", "text": "b"}], "status": "completed", "id": "msg_req_1_in_1", "type": "message"}),
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "c"}], "id": "msg_mine", "status": "completed"}),
            json!({"type": "function_call_output", "call_id": "c1", "output": "d", "id": "fco_req_1_in_3"}),
        ]
    );
    let text = input_items("\"hello\"", "resp_req_1");
    assert_eq!(text[0]["content"][0]["text"], "hello");
}

#[test]
fn a_response_that_is_streamed_again_is_the_same_and_can_begin_later() {
    let response = json!({"id": "resp_1", "status": "completed", "output": [{"id": "msg_1", "type": "message",
        "content": [{"type": "output_text", "text": "hi"}]}]});
    let events = replay(&response, None);
    assert_eq!(last_response(&events), Some(response.clone()));
    let later = replay(&response, Some(1));
    let text = String::from_utf8(later).expect("text");
    assert!(text.starts_with("event: response.output_text.delta\n"), "{text}");
    assert!(
        text.contains("\"sequence_number\":2") && !text.contains("\"sequence_number\":1"),
        "{text}"
    );
    assert_eq!(last_response(&replay(&response, Some(100))), None);
}

#[test]
fn a_servers_own_answer_gets_the_gateways_id_and_says_what_is_stored() {
    let label = Label {
        id: "resp_req_1".to_owned(),
        previous_response_id: Some("resp_req_0".to_owned()),
        store: true,
    };
    let whole = label
        .whole(br#"{"id":"resp_x","output":[],"store":false,"z":1}"#)
        .expect("JSON");
    assert_eq!(
        String::from_utf8(whole).expect("text"),
        r#"{"id":"resp_req_1","output":[],"store":true,"z":1,"previous_response_id":"resp_req_0"}"#
    );
    assert_eq!(label.whole(b"[]"), None);
    let stream = "event: response.created\r\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_x\"}}\r\n\r\n\
        data: {\"type\":\"response.output_text.delta\",\"delta\":\"\\\"response\\\":{\"}\n\n: note\n\n\
        data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_x\",\"output\":[]}}\n\n";
    let out = String::from_utf8(label.events(stream.as_bytes())).expect("text");
    assert!(!out.contains("resp_x"), "{out}");
    assert!(
        out.contains("data: {\"type\":\"response.output_text.delta\",\"delta\":\"\\\"response\\\":{\"}\n\n: note\n\n"),
        "{out}"
    );
    let last = last_response(out.as_bytes()).expect("a response");
    assert_eq!((&last["id"], &last["store"]), (&json!("resp_req_1"), &json!(true)));
    let unstored = last_response(&not_stored(out.as_bytes())).expect("a response");
    assert_eq!((&unstored["store"], &unstored["output"]), (&json!(false), &json!([])));
}
