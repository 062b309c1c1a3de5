//! What is written as a stream reads back as the same events, whatever text they carry.

mod replies;

use belljar_wire::event::StreamEvent;
use belljar_wire::sse::encode;
use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;

/// A reader of event streams as the HTML standard describes one, §9.2.6; independent of the writer.
fn dispatched(stream: &str) -> Vec<(String, String)> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), String::new());
    for line in lines.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if !data.is_empty() {
                    data.pop();
                    events.push((std::mem::take(&mut name), std::mem::take(&mut data)));
                }
                name.clear();
            }
            "event" => value.clone_into(&mut name),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            _ => {}
        }
    }
    events
}

fn written(events: &[StreamEvent]) -> String {
    let mut out = BytesMut::new();
    events.iter().for_each(|event| encode(event, &mut out));
    String::from_utf8(out.to_vec()).expect("a stream is UTF-8")
}

fn check(events: &[StreamEvent]) -> Result<(), TestCaseError> {
    let stream = written(events);
    let read = dispatched(&stream);
    prop_assert_eq!(read.len(), events.len(), "{}", stream);
    for ((name, data), event) in read.iter().zip(events) {
        let data: Value = serde_json::from_str(data).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(name, event.name());
        prop_assert_eq!(&data["type"], event.name());
        prop_assert_eq!(data, serde_json::to_value(event).expect("events serialize"));
    }
    // Three lines to an event, so nothing stands in the stream besides.
    prop_assert_eq!(stream.split('\n').count(), 3 * events.len() + 1);
    prop_assert!(!stream.contains('\r'));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_stream_reads_back_as_its_events((_, events) in replies::reply()) {
        check(&events)?;
    }

    #[test]
    fn every_event_reads_back(event in replies::event()) {
        check(&[event])?;
    }
}

#[test]
fn a_forged_event_stays_text() {
    use belljar_wire::event::Delta;
    let text = "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned();
    let events = [StreamEvent::ContentBlockDelta { index: 0, delta: Delta::TextDelta { text } }, StreamEvent::Ping];
    assert_eq!(
        written(&events),
        concat!(
            "event: content_block_delta\n",
            r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","#,
            r#""text":"\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"}}"#,
            "\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
        )
    );
}
