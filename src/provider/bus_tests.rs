//! Tests of the plugins' language; the plugins themselves are tried in `tests/it`.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn whatever_a_plugin_writes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_answer(&bytes);
        let _ = read_info(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn an_answer_followed_by_anything_is_no_answer(rest in "[^ \\t\\r\\n]{1,20}") {
        let text = format!("{{\"state\":\"success\"}}\n{rest}");
        prop_assert!(matches!(read_answer(text.as_bytes()), Err(AnswerError::MoreThanOne(_))));
    }

    #[test]
    fn a_text_survives_the_way_to_the_plugin(version in ".{0,40}") {
        let event = Event::install(&Payload { version: version.clone(), ..Payload::default() });
        let stdin = value(&event.message("/f").stdin);
        let data = value(stdin["data"].as_str().expect("text").as_bytes());
        prop_assert_eq!(data["version"].as_str(), Some(version.as_str()));
    }
}

fn plugin(name: &str) -> Plugin {
    Plugin {
        name: name.into(),
        path: format!("/system/providers/{PREFIX}{name}"),
    }
}

fn done() -> Reply {
    Reply::Done {
        data: String::new(),
        log: String::new(),
    }
}

fn value(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn an_installation_is_asked_for_in_the_words_that_plugins_know() {
    let event = Event::install(&Payload {
        provider: "k3s".into(),
        version: "v1".into(),
        log_level: "info".into(),
        config: "/c".into(),
        family: "debian".into(),
    });
    assert_eq!(event.name, "init.provider.install");
    let message = event.message("/unused");
    assert_eq!(message.file, None);
    let stdin = value(&message.stdin);
    assert_eq!(stdin["name"], "init.provider.install");
    assert_eq!(stdin["file"], "");
    let data = value(stdin["data"].as_str().expect("text").as_bytes());
    assert_eq!(
        data,
        json!({ "provider": "k3s", "version": "v1", "logLevel": "info", "config": "/c", "family": "debian" })
    );
}

#[test]
fn the_question_for_what_is_installed_carries_null() {
    let stdin = value(&Event::info().message("/unused").stdin);
    assert_eq!(
        stdin,
        json!({ "name": "init.provider.info", "data": "null", "file": "" })
    );
}

#[test]
fn data_beyond_8192_bytes_travels_in_a_file() {
    let event = |bytes: usize| {
        let empty = Event::install(&Payload::default()).data.len();
        Event::install(&Payload {
            version: "v".repeat(bytes - empty),
            ..Payload::default()
        })
    };
    assert_eq!(event(8192).message("/f").file, None);
    let long = event(8193);
    let message = long.message("/f");
    let stdin = value(&message.stdin);
    assert_eq!((&stdin["data"], &stdin["file"]), (&json!(""), &json!("/f")));
    assert_eq!(message.file, Some(long.data.into_bytes()));
}

#[test]
fn answers_are_read_as_plugins_write_them() {
    for (text, expected) in [
        (
            r#"{"state":"success","data":"d","error":"","log":"l"}"#,
            Some(("d", "l")),
        ),
        ("\n {\"state\":\"success\"}\r\n\n", Some(("", ""))),
        (
            r#"{"state":"success","data":null,"extra":1}"#,
            Some(("", "")),
        ),
        (
            r#"{"state":"non-applicable","data":"","error":"","log":""}"#,
            None,
        ),
        (r#"{"state":"","data":"","error":"","log":""}"#, None),
        ("{}", None),
    ] {
        let reply = read_answer(text.as_bytes()).expect(text);
        let expected = expected.map_or(Reply::NotApplicable, |(data, log)| Reply::Done {
            data: data.into(),
            log: log.into(),
        });
        assert_eq!(reply, expected, "{text}");
    }
}

#[test]
fn what_is_not_one_answer_is_an_error_that_says_so() {
    for (text, words) in [
        ("", "said nothing"),
        (" \n", "said nothing"),
        (
            r#"{"state":"success"}{"state":"success"}"#,
            "more than once",
        ),
        ("{\"state\":\"success\"}\nbye\n", "begins with \"bye\""),
        ("Downloading...\n", "not a JSON object"),
        (r#"{"state":"success""#, "not a JSON object"),
        (r#"["success"]"#, "it is no object"),
        ("42", "it is no object"),
        (r#"{"state":7}"#, "not a JSON object"),
        (r#"{"state":"done"}"#, "state \"done\""),
        (r#"{"state":"error"}"#, "without a reason"),
        (
            r#"{"state":"success","error":"disk full"}"#,
            "it reports: disk full",
        ),
        (
            r#"{"state":"non-applicable","error":"disk full"}"#,
            "it reports: disk full",
        ),
    ] {
        let error = read_answer(text.as_bytes()).expect_err(text);
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
}

#[test]
fn a_failure_carries_the_last_lines_of_what_the_plugin_said() {
    let log: Vec<String> = (0..50).map(|line| format!("line {line}")).collect();
    let answer = json!({ "state": "error", "error": "no", "log": log.join("\n"), "data": "end" });
    let error = read_answer(answer.to_string().as_bytes()).expect_err("failed");
    assert_eq!(error.said().len(), TAIL_LINES);
    assert_eq!(error.said().last().map(String::as_str), Some("end"));
}

#[test]
fn control_characters_of_an_answer_are_escaped() {
    for text in ["\u{1b}[2J", "{}\u{1b}[2J", r#"{"state":"\u001b[2J"}"#] {
        let error = read_answer(text.as_bytes()).expect_err("bad");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
}

#[test]
fn exactly_one_plugin_installs_a_provider() {
    let (a, b) = (plugin("a"), plugin("b"));
    let two = |first, second| [(a.clone(), first), (b.clone(), second)];
    assert_eq!(claimed_by(&two(Reply::NotApplicable, done())), Ok(&b));
    assert_eq!(claimed_by(&[]), Err(ClaimError::NoPlugins));
    let paths = vec![a.path.clone(), b.path.clone()];
    assert_eq!(
        claimed_by(&two(Reply::NotApplicable, Reply::NotApplicable)),
        Err(ClaimError::Unclaimed(paths.clone()))
    );
    assert_eq!(
        claimed_by(&two(done(), done())),
        Err(ClaimError::ClaimedTwice(paths))
    );
}

#[test]
fn what_is_installed_needs_a_name_and_a_version() {
    let installed = Installed {
        provider: "k3s".into(),
        version: "v1".into(),
    };
    assert_eq!(
        read_info(r#"{"provider":"k3s","version":"v1"}"#),
        Ok(Some(installed))
    );
    assert_eq!(read_info(r#"{"provider":"k3s","version":""}"#), Ok(None));
    assert!(read_info(r#"{"provider":"k3s","version":"v1\nX=1"}"#).is_err());
    assert!(read_info("v1").is_err());
    assert!(read_info("").is_err());
}
