//! `POST /v1/images/generations` and `/v1/images/edits`: images from a text, and from images and a text, as OpenAI's API
//! has them. They are counted: an image has a price, its tokens are the server's own affair.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::form::{self, Form};
use crate::openai;
use crate::request::{ParsedRequest, Spans, model_named};
use crate::scan::{Raw, fields, top_level};
use crate::size::PromptSize;
use crate::view::Seen;
use crate::wire::json::Cursor;
use policy::Units;

/// Images of one request, at most; OpenAI's bound, which other servers share.
const MOST_IMAGES: u64 = 10;

fields! {
    struct Head { model, prompt, negative_prompt, n, images, image, mask }
}

/// The dialect.
pub(crate) struct Images;

impl Dialect for Images {
    fn parse<'a>(
        &self,
        operation: Operation,
        body: &'a [u8],
        content_type: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError> {
        if operation != Operation::ImageEdits || form::boundary(content_type)?.is_none() {
            return parse_json(body);
        }
        let form = Form::parse(content_type, body)?;
        let (model, spans) = form.model()?;
        let mut size = PromptSize::of_text(form.text("prompt")?.unwrap_or_default());
        for image in form.list("image").chain(form.list("mask")) {
            size.add_image_file(image.value);
        }
        Ok(ParsedRequest {
            model: model.into(),
            size,
            units: units(count_of(form.text("n")?)?)?,
            spans,
            ..ParsedRequest::default()
        })
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view(data)
    }
}

fn parse_json(body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    let count = head.n.count("n")?.unwrap_or(1);
    if head.prompt.text().is_none() {
        return Err(RequestError::invalid(
            "prompt",
            "`prompt` is missing: what the image shows",
        ));
    }
    let mut size = PromptSize::of(&[head.prompt, head.negative_prompt]);
    for images in [head.images, head.image, head.mask] {
        add_images(&mut size, images);
    }
    Ok(ParsedRequest {
        model: model_named(head.model)?,
        size,
        units: units(count)?,
        spans: Spans {
            model: head.model.range(body),
            ..Spans::default()
        },
        ..ParsedRequest::default()
    })
}

/// Images given by an address, a data URL, or an object around either.
fn add_images(size: &mut PromptSize, images: Raw<'_>) {
    images.each(|image| {
        if image.starts_with('"') {
            size.add_images(images);
        } else {
            // `{"image_url": …}`
            size.add(images, false);
        }
    });
}

fn count_of(text: Option<&str>) -> Result<u64, RequestError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(1);
    };
    text.parse()
        .map_err(|_| RequestError::invalid("n", format!("`n` must be a whole number, not {text:.40}")))
}

fn units(images: u64) -> Result<Units, RequestError> {
    if !(1..=MOST_IMAGES).contains(&images) {
        let message = format!("`n` must be from 1 to {MOST_IMAGES}, not {images}");
        return Err(RequestError::invalid("n", message));
    }
    Ok(Units {
        images,
        ..Units::default()
    })
}

/// Reads a whole answer: its images are counted. What it says of output tokens is not taken: none were reserved.
fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = openai::view::view(data)?;
    let mut images = None;
    Cursor::new(data).object(|key, value| match key {
        b"data" => value.list(|image| {
            images = Some(images.unwrap_or(0) + 1);
            image.skip()
        }),
        _ => value.skip(),
    })?;
    seen.reported.output = None;
    seen.reported.total = None;
    seen.reported.images = images;
    Some(seen)
}

#[cfg(test)]
mod tests {
    use crate::meter::{Bounds, Meter};
    use crate::{HeadFields, Operation, parse, parse_with_head};

    #[test]
    fn so_many_images_are_reserved_as_are_asked_for_and_no_more_than_ten() {
        let images = |n: &str| {
            let body = format!(r#"{{"model":"m","prompt":"a cat"{n}}}"#);
            parse(Operation::ImageGenerations, body.as_bytes()).map(|parsed| parsed.units.images)
        };
        assert_eq!(images("").ok(), Some(1));
        assert_eq!(images(r#","n":10"#).ok(), Some(10));
        assert_eq!(images(r#","n":null"#).ok(), Some(1));
        // Whether a fraction is a number of images is the server's decision; it cannot mean more.
        assert_eq!(images(r#","n":1.5"#).ok(), Some(2));
        for wrong in [r#","n":0"#, r#","n":11"#, r#","n":-1"#, r#","n":1e19"#] {
            assert!(
                images(wrong).is_err_and(|error| error.param.as_deref() == Some("n")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_edit_is_a_form_or_json_and_counts_the_images_that_it_reads() {
        let form = b"--b\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a.png\"\r\n\r\n\
            \x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x04\0\r\n--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n\
            3\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
        let head = HeadFields {
            content_type: Some("multipart/form-data; boundary=b"),
            model: None,
        };
        let parsed = parse_with_head(Operation::ImageEdits, form, head).expect("valid");
        assert_eq!((parsed.units.images, parsed.model.as_ref()), (3, "m"));
        assert!(!parsed.size.is_text_alone());
        let json = br#"{"model":"m","prompt":"p","images":[{"image_url":"https://x/y.png"}]}"#;
        let parsed = parse(Operation::ImageEdits, json).expect("valid");
        assert_eq!(parsed.units.images, 1);
        assert!(!parsed.size.is_text_alone());
    }

    #[test]
    fn the_images_of_an_answer_are_counted_and_its_output_tokens_left_alone() {
        let mut meter = Meter::new(Operation::ImageGenerations, false);
        let usage = r#"{"input_tokens":9,"output_tokens":4160,"total_tokens":4169}"#;
        meter.see_whole(
            format!(r#"{{"created":1,"data":[{{"b64_json":"AA"}},{{"url":"x"}}],"usage":{usage}}}"#).as_bytes(),
        );
        let bounds = Bounds {
            estimated_input: 5,
            ..Bounds::default()
        };
        let (usage, _) = meter.usage(&bounds);
        assert_eq!(
            (meter.images(), usage.input_tokens, usage.output_tokens),
            (Some(2), 9, 0)
        );
    }
}
