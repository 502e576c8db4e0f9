use super::*;
use crate::{HeadFields, LimitRule, Operation, ParsedRequest, RequestChanges, parse_with_head, rewrite};
use proptest::prelude::*;

const TYPE: &str = "multipart/form-data; boundary=XX";

fn field(name: &str, value: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(content: &str) -> String {
    format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ä \u{1f3a4}.wav\"\r\nContent-Type: audio/wav\
         \r\n\r\n{content}\r\n"
    )
}

fn form(parts: &[String]) -> Vec<u8> {
    format!("{}--XX--\r\n", parts.concat()).into_bytes()
}

fn parsed<'a>(content_type: &str, body: &'a [u8]) -> Result<ParsedRequest<'a>, RequestError> {
    let head = HeadFields {
        model: None,
        content_type: Some(content_type),
    };
    parse_with_head(Operation::Transcriptions, body, head)
}

fn renamed(content_type: &str, body: &[u8], model: &str) -> Vec<u8> {
    let parsed = parsed(content_type, body).expect("valid");
    let changes = RequestChanges::new(&parsed, model, 1, LimitRule::Always);
    rewrite(Operation::Transcriptions, body, &parsed, &changes).expect("changed")
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[test]
fn the_models_name_is_changed_wherever_it_stands_and_nothing_else_is() {
    let (model, sound, other) = (field("model", "mine"), file("sound\r\n--X"), field("prompt", "a\r\nb"));
    for order in [
        [&model, &sound, &other],
        [&sound, &model, &other],
        [&other, &sound, &model],
    ] {
        let body = form(&order.map(Clone::clone));
        let wanted = text(&body).replace("\r\nmine\r\n", "\r\ntheirs-is-longer\r\n");
        assert_eq!(text(&renamed(TYPE, &body, "theirs-is-longer")), wanted);
    }
}

#[test]
fn the_length_that_a_client_gives_for_the_models_part_stays_true() {
    let model = "--XX\r\ncontent-length: 4\r\nContent-Disposition: form-data; name=model\r\n\r\nmine\r\n".to_owned();
    let body = form(&[file("x"), model]);
    let out = text(&renamed(TYPE, &body, "theirs"));
    assert!(
        out.contains("content-length: 6\r\n") && out.contains("\r\n\r\ntheirs\r\n"),
        "{out}"
    );
}

#[test]
fn a_model_that_only_the_path_names_is_added_as_a_field() {
    let body = form(&[file("x")]);
    let head = HeadFields {
        model: Some("mine"),
        content_type: Some(TYPE),
    };
    let parsed = parse_with_head(Operation::Transcriptions, &body, head).expect("valid");
    let changes = RequestChanges::new(&parsed, "theirs", 1, LimitRule::Always);
    let out = rewrite(Operation::Transcriptions, &body, &parsed, &changes).expect("changed");
    let again = Form::parse(Some(TYPE), &out).expect("still a form");
    assert_eq!(again.text("model").ok(), Some(Some("theirs")));
    assert!(out.ends_with(&body), "the client's form follows untouched");
}

#[test]
fn boundaries_are_read_in_every_form_that_clients_write() {
    let body = form(&[field("model", "m"), file("x")]);
    for content_type in [
        TYPE,
        "multipart/form-data;boundary=XX",
        "Multipart/Form-Data; charset=UTF-8; Boundary=\"XX\"",
        "multipart/form-data; boundary=\"X\\X\"",
        "multipart/form-data ; boundary=XX ; x=y",
    ] {
        let read = parsed(content_type, &body).map(|parsed| parsed.model.into_owned());
        assert_eq!(read.ok().as_deref(), Some("m"), "{content_type}");
    }
    let odd = b"--a'()+_,-./:=? b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--a'()+_,-./:=? b--";
    assert!(Form::parse(Some("multipart/form-data; boundary=\"a'()+_,-./:=? b\""), odd).is_ok());
}

#[test]
fn a_preamble_an_epilogue_and_spaces_behind_a_boundary_are_no_content() {
    let body =
        b"preamble --XX\r\n--XX \t\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n\r\n--XX--\r\nepilogue";
    let form = Form::parse(Some(TYPE), body).expect("valid");
    let value = form.part("file").expect("once").map(|part| part.value.to_vec());
    assert_eq!(value.as_deref(), Some(&b""[..]));
    let no_value = b"--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n--XX--";
    assert!(Form::parse(Some(TYPE), no_value).is_ok());
}

#[test]
fn the_boundarys_characters_inside_a_line_are_content() {
    let content = "a--XX\r\n--XXY\r\n --XX\r\n-XX";
    let body = form(&[field("model", "m"), file(content)]);
    let form = Form::parse(Some(TYPE), &body).expect("valid");
    let value = form.part("file").expect("once").map(|part| text(part.value));
    assert_eq!(value.as_deref(), Some(content));
}

#[test]
fn what_two_parsers_could_read_in_two_ways_is_refused() {
    let model = |headers: &str| format!("--XX\r\n{headers}\r\n\r\nm\r\n");
    let disposition = "Content-Disposition: form-data; name=\"model\"";
    for (wrong, body) in [
        (
            "two models",
            form(&[field("model", "a"), file("x"), field("model", "b")]),
        ),
        (
            "the same model twice",
            form(&[field("model", "a"), field("model", "a"), file("x")]),
        ),
        ("two files", form(&[field("model", "a"), file("x"), file("y")])),
        (
            "the model as a file",
            form(&[model(&format!("{disposition}; filename=\"m\"")), file("x")]),
        ),
        (
            "two names",
            form(&[model(&format!("{disposition}; name=\"other\"")), file("x")]),
        ),
        (
            "an encoded name",
            form(&[model(&format!("{disposition}; name*=UTF-8''file")), file("x")]),
        ),
        (
            "two dispositions",
            form(&[
                model(&format!("{disposition}\r\nContent-Disposition: form-data; name=\"n\"")),
                file("x"),
            ]),
        ),
        (
            "a folded header",
            form(&[model("Content-Disposition: form-data;\r\n name=\"model\""), file("x")]),
        ),
        (
            "a bare line feed",
            form(&[model(&format!("{disposition}\nX: y")), file("x")]),
        ),
        (
            "base64",
            form(&[
                model(&format!("{disposition}\r\nContent-Transfer-Encoding: base64")),
                file("x"),
            ]),
        ),
        ("no name", form(&[model("Content-Disposition: form-data"), file("x")])),
        ("no disposition", form(&[model("X: y"), file("x")])),
        (
            "an open quote",
            form(&[model("Content-Disposition: form-data; name=\"model"), file("x")]),
        ),
    ] {
        let error = parsed(TYPE, &body).expect_err(wrong);
        assert_eq!(error.code, ErrorCode::BadRequest, "{wrong}");
    }
}

#[test]
fn a_malformed_body_is_refused_with_what_is_wrong_with_it() {
    let whole = form(&[field("model", "m"), file("x")]);
    let cases: [(&str, &[u8], &str); 8] = [
        (TYPE, b"", "does not occur"),
        (TYPE, b"{\"model\":\"m\"}", "does not occur"),
        (TYPE, &whole[..whole.len() - 8], "closing boundary"),
        (TYPE, b"--XX", "line break"),
        (
            TYPE,
            b"--XX\r\nContent-Disposition: form-data; name=\"a\"",
            "headers do not end",
        ),
        ("multipart/form-data", &whole, "no `boundary`"),
        ("multipart/form-data; boundary=XX; boundary=YY", &whole, "given twice"),
        ("multipart/form-data; boundary=XX; charset=utf-16", &whole, "UTF-8"),
    ];
    for (content_type, body, why) in cases {
        let error = parsed(content_type, body).expect_err(why);
        assert!(error.message.contains(why), "{}: {why}", error.message);
    }
    let long = format!("--XX\r\nX: {}\r\n\r\n\r\n--XX--", "y".repeat(9000));
    assert!(parsed(TYPE, long.as_bytes()).is_err());
    for other in [None, Some("application/json"), Some("multipart/mixed; boundary=XX")] {
        let error = Form::parse(other, &whole).expect_err("no form");
        assert_eq!(error.code.status(), 415);
    }
}

#[test]
fn a_form_without_a_model_or_a_file_is_refused_by_the_fields_name() {
    let error = parsed(TYPE, &form(&[file("x")])).expect_err("no model");
    assert_eq!(error.param.as_deref(), Some("model"));
    let error = parsed(TYPE, &form(&[field("model", "m")])).expect_err("no file");
    assert_eq!(error.param.as_deref(), Some("file"));
}

#[test]
fn a_stream_is_asked_for_by_every_word_for_yes() {
    for (word, is_streaming) in [
        ("true", true),
        ("True", true),
        ("1", true),
        ("false", false),
        ("0", false),
        ("", false),
    ] {
        let body = form(&[field("stream", word), field("model", "m"), file("x")]);
        assert_eq!(parsed(TYPE, &body).expect("valid").is_streaming, is_streaming, "{word}");
    }
}

proptest! {
    #[test]
    fn no_body_panics_and_what_is_read_is_what_was_written(
        content in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        model in "[a-z/:.-]{1,20}",
    ) {
        let mut body = field("model", &model).into_bytes();
        body.extend(b"--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n");
        body.extend(&content);
        body.extend(b"\r\n--XX--\r\n");
        let end = cut.index(body.len());
        let _ = parsed(TYPE, &body[..end]);
        // Content with the boundary in it is no content.
        prop_assume!(memmem::find(&content, b"--XX").is_none());
        let form = Form::parse(Some(TYPE), &body).expect("valid");
        prop_assert_eq!(form.text("model").ok(), Some(Some(model.as_str())));
        let value = form.part("file").expect("once").map(|part| part.value.to_vec());
        prop_assert_eq!(value, Some(content));
    }
}
